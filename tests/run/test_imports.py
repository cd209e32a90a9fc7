"""What a run's processes import, for each of which every run of a study waits."""

import subprocess
import sys

import pytest

STUDIES = {"yaml", "llenergymeasure.config.study_document", "llenergymeasure.config.expansion"}
SERVING = {"llenergymeasure.backends.serving.client", "llenergymeasure.workload.prompts"}


@pytest.mark.parametrize(
    ("start", "needless"),
    [
        (
            "from llenergymeasure.run.result import build_result\n"
            "build_result.keep_arrow_from_importing_pandas()\n"
            "import pyarrow; pyarrow.array([1])",
            {"pandas", "llenergymeasure.config.experiment", *STUDIES, *SERVING},
        ),
        (
            "from llenergymeasure.recording import recorder\n"
            "recorder.keep_arrow_from_importing_pandas()\n"
            "import pyarrow; pyarrow.array([1])",
            {"pandas", "pyarrow.parquet", "pydantic"},
        ),
        (
            "import llenergymeasure.run.engine.engine_process",
            {"asyncio", "pyarrow", "pandas", "llenergymeasure.results.record", *STUDIES},
        ),
    ],
)
def test_processes_of_a_run_import_nothing_that_they_have_no_use_for(
    start: str, needless: set[str]
) -> None:
    code = f"import sys\n{start}\nprint(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not needless & set(result.stdout.split())


def test_pandas_can_be_imported_after_arrow_was_kept_from_it() -> None:
    pytest.importorskip("pandas")
    code = (
        "from llenergymeasure.recording.samples import keep_arrow_from_importing_pandas\n"
        "keep_arrow_from_importing_pandas()\n"
        "import pandas, pyarrow\n"
        "assert pyarrow.array([1, 2]).to_pylist() == [1, 2]\n"
        "print(len(pandas.Series([1])))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "1\n"
