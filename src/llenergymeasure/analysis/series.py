"""The time series of a whole study as one data set; a query reads only what it needs."""

from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from llenergymeasure.analysis.tables import read_plan
from llenergymeasure.errors import ResultsError
from llenergymeasure.results.layout import StudyFolder


def study_series(study_dir: Path | str, name: Literal["samples", "requests"]) -> Any:
    """Return the ``samples`` or ``requests`` of every finished run as one data set.

    It is a :class:`pyarrow.dataset.Dataset` with the columns of the runs' files, and ``experiment``
    and ``cycle`` next to them; DuckDB, pandas and Polars query it too. Files that a filter on these
    two leaves out are not opened.

    Args:
        study_dir: the study's results folder.
        name: which series.

    Raises:
        ResultsError: there is no plan, or no finished run.
    """
    import pyarrow.dataset as ds

    study = StudyFolder(Path(study_dir))
    runs = [study.run(run["experiment"], run["cycle"]) for run in read_plan(study.plan)["runs"]]
    files = [str(run.path / f"{name}.parquet") for run in runs if run.result.is_file()]
    if not files:
        raise ResultsError(f"{study.path} has no finished run: there are no {name} yet")
    keys = pa.schema([("experiment", pa.string()), ("cycle", pa.int64())])
    return ds.dataset(
        files,
        format="parquet",
        partitioning=ds.partitioning(keys),
        partition_base_dir=str(study.path / "runs"),
    )
