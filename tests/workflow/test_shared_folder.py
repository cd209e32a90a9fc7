"""Two studies of one name do not share a results folder in silence."""

from pathlib import Path

from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.workflow.resume import StudyCall, read_call, store_call


def test_another_file_of_the_same_name_is_named(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "results" / "same")
    folder.path.mkdir(parents=True)
    one, two = (tmp_path / name for name in ("one.yaml", "two.yaml"))
    one.write_text("model: tiny-llama\n")
    two.write_text("model: tiny-llama\n")
    assert store_call(folder, StudyCall(one)) == []
    assert store_call(folder, StudyCall(one)) == []
    (line,) = store_call(folder, StudyCall(two))
    assert str(one) in line
    assert str(two) in line
    call = read_call(folder)
    assert call is not None
    assert call.study_file == two
    two.unlink()  # renamed: nobody else
    assert store_call(folder, StudyCall(one)) == []
