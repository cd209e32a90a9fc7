"""Merging again reads what is new and nothing else, and is never stale."""

import json
import os
import random
import time

import pyarrow.parquet as pq
import pytest

from llenergymeasure.analysis import merge
from llenergymeasure.analysis.merge import merge_runs
from llenergymeasure.analysis.merge_cache import CACHE_NAME
from llenergymeasure.analysis.tables import write_tables
from llenergymeasure.errors import ResultsError
from llenergymeasure.files import sha256
from llenergymeasure.results.complete import sound_record
from llenergymeasure.results.layout import TABLE_NAMES, StudyFolder
from results.synthetic import (
    make_plan,
    make_result,
    vouch_again,
    write_complete_study,
    write_plan,
    write_result,
)

CONFIGS = [{"model": "tiny-llama", "pytorch": {"batch_size": size}} for size in (1, 8)]
SWEPT = ["pytorch.batch_size"]


@pytest.fixture
def plan():
    return make_plan(CONFIGS, SWEPT, cycles=5)


@pytest.fixture(autouse=True)
def _files_are_settled(monkeypatch):
    """Take files for settled at once, as they are two seconds later."""
    monkeypatch.setattr("llenergymeasure.results.complete.SETTLED_NS", -(10**10))


def merged(plan, folder, **settings):
    """Return the merged table and how many files it took."""
    read = []

    def looked_at(run):
        read.append(run)
        return sound_record(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge, "sound_record", looked_at)
        return merge.merge_runs(plan, folder, **settings), len(read)


@pytest.mark.parametrize("name", ["result.json", "run.parquet", "outcome.json"])
def test_a_run_that_is_no_longer_whole_is_not_taken_from_the_cache(tmp_path, plan, name):
    write_complete_study(tmp_path, plan)
    run = StudyFolder(tmp_path).run(plan["runs"][0]["experiment"], 1)
    kept = {"status": "completed", "result_sha256": sha256(run.result)}
    run.outcome.write_text(json.dumps(kept))
    merged(plan, tmp_path)
    content = (run.path / name).read_text(errors="surrogateescape")
    (run.path / name).write_text(content.replace("0", "1", 1), errors="surrogateescape")
    if name == "outcome.json":
        run.outcome.write_text(json.dumps({**kept, "result_sha256": "0" * 64}))
    table, _ = merged(plan, tmp_path, tolerant=True)
    assert table["status"].to_pylist()[0] == "lost"
    assert name.replace("outcome", "result") in table["error_message"].to_pylist()[0]


def test_a_record_of_a_later_version_is_refused_in_one_line(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    run = StudyFolder(tmp_path).run(plan["runs"][0]["experiment"], 1)
    record = json.loads(run.result.read_text())
    run.result.write_text(json.dumps({**record, "schema_version": 99}))
    for tolerant in (False, True):
        with pytest.raises(ResultsError, match=r"record version 99; this program reads up to 1$"):
            merged(plan, tmp_path, tolerant=tolerant)


def row_file(folder, run):
    return StudyFolder(folder).run(run["experiment"], run["cycle"]).row


def test_the_second_merge_reads_nothing_and_gives_the_same(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    first, read = merged(plan, tmp_path)
    assert read == 10
    second, read = merged(plan, tmp_path)
    assert read == 0
    assert second.equals(first)


def test_only_new_runs_are_read(tmp_path, plan):
    write_plan(tmp_path, plan)
    for run in plan["runs"][:6]:
        write_result(tmp_path, make_result(run))
    assert merged(plan, tmp_path)[1] == 6
    for run in plan["runs"][6:]:
        write_result(tmp_path, make_result(run))
    table, read = merged(plan, tmp_path)
    assert read == 4
    assert set(table["status"].to_pylist()) == {"completed"}


def test_a_changed_file_is_read_again(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    merged(plan, tmp_path)
    write_result(tmp_path, make_result(plan["runs"][3], energy_j=77.0))
    table, read = merged(plan, tmp_path)
    assert read == 1
    assert table["energy_gross_j"].to_pylist()[3] == 77.0


def test_a_file_changed_in_place_with_its_old_size_and_time_is_read_again(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    table, _ = merged(plan, tmp_path)
    path = StudyFolder(tmp_path).run(plan["runs"][0]["experiment"], 1).result
    energy_j = f'"power_mean_w":{table["power_mean_w"][0].as_py()}'.encode()
    before = path.stat()
    with path.open("r+b") as stream:
        content = stream.read()
        assert content.count(energy_j) == 1
        changed_j = b'"power_mean_w":77.0'
        stream.seek(0)
        stream.write(content.replace(energy_j, changed_j + b" " * (len(energy_j) - len(changed_j))))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_ino, after.st_mtime_ns) == (
        before.st_size,
        before.st_ino,
        before.st_mtime_ns,
    )
    table, read = merged(plan, tmp_path)
    assert read == 1
    assert table["power_mean_w"][0].as_py() == 77.0


def test_a_file_that_may_still_change_unseen_is_not_kept(tmp_path, plan, monkeypatch):
    write_complete_study(tmp_path, plan)
    monkeypatch.setattr("llenergymeasure.results.complete.SETTLED_NS", 3600 * 10**9)
    merged(plan, tmp_path)
    assert merged(plan, tmp_path)[1] == 10


def test_a_file_that_changed_amid_the_looks_at_all_is_not_kept(tmp_path, plan, monkeypatch):
    write_complete_study(tmp_path, plan)
    monkeypatch.setattr("llenergymeasure.results.complete.SETTLED_NS", 0)
    stamp, last = merge.stamp, plan["runs"][-1]

    def looked_late(run, *when):
        if run.endswith(f"{last['experiment']}/{last['cycle']}"):
            time.sleep(0.05)  # a time stamp is a tick of the clock old
            os.utime(f"{run}/result.json")
            time.sleep(0.05)
        return stamp(run, *when)

    monkeypatch.setattr(merge, "stamp", looked_late)
    merged(plan, tmp_path)
    monkeypatch.setattr(merge, "stamp", stamp)
    assert merged(plan, tmp_path)[1] == 1


def test_a_record_that_is_gone_is_gone_in_spite_of_the_cache(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    merged(plan, tmp_path)
    run = plan["runs"][2]
    StudyFolder(tmp_path).run(run["experiment"], run["cycle"]).result.unlink()
    assert merged(plan, tmp_path)[0]["status"].to_pylist()[2] == "missing"


def test_another_plan_takes_rows_in_its_own_order(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    merged(plan, tmp_path)
    runs = [{**run, "order": 11 - run["order"]} for run in plan["runs"]]
    table, read = merged({**plan, "runs": runs}, tmp_path)
    assert read == 0
    assert table["order"].to_pylist() == list(range(1, 11))
    assert table["cycle"].to_pylist() == [run["cycle"] for run in plan["runs"]][::-1]


@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "stray bytes"])
def test_a_damaged_cache_is_as_good_as_none(tmp_path, plan, damage):
    write_complete_study(tmp_path, plan)
    first, _ = merged(plan, tmp_path)
    path = tmp_path / CACHE_NAME
    content = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "cut": content[: len(content) // 2],
            "garbage": b"ARROW1\0\0" + b"x" * 500,
            "stray bytes": content + b"abc",
        }[damage]
    )
    again, read = merged(plan, tmp_path)
    assert read == 10
    assert again.equals(first)
    assert merged(plan, tmp_path)[1] == 0


def test_every_flipped_bit_of_a_cache_still_gives_the_right_table(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    first, _ = merged(plan, tmp_path)
    path = tmp_path / CACHE_NAME
    whole = path.read_bytes()
    rng = random.Random(20261126)
    for _ in range(60):
        bit = rng.randrange(8 * len(whole))
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        again, read = merged(plan, tmp_path)
        assert again.equals(first), f"bit {bit}"
        assert read == 10, f"bit {bit} was not noticed"
    assert merged(plan, tmp_path)[1] == 0


def test_a_damaged_row_is_never_kept(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    path = row_file(tmp_path, plan["runs"][0])
    whole = path.read_bytes()
    path.write_bytes(b"")
    table, _ = merged(plan, tmp_path, tolerant=True)
    assert table["status"].to_pylist()[0] == "lost"
    path.write_bytes(whole)
    table, read = merged(plan, tmp_path)
    assert read == 1
    assert set(table["status"].to_pylist()) == {"completed"}


def test_records_of_an_older_version_merge_with_those_of_this_one(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    run = StudyFolder(tmp_path).run(plan["runs"][1]["experiment"], 1)
    pq.write_table(pq.read_table(run.row).drop_columns(["mfu", "host"]), run.row)
    record = json.loads(run.result.read_text())
    del record["quality"], record["environment"]["host"]
    run.result.write_text(json.dumps(record))
    vouch_again(run)
    rows = merge_runs(plan, tmp_path)["host"].to_pylist()
    assert rows[1] is None
    assert rows[0] == rows[2] == "node-1"


def test_rows_of_another_sweep_are_not_taken(tmp_path, plan):
    write_plan(tmp_path, plan)
    for run in plan["runs"]:
        environment = make_result(run).environment
        account = {"engine": {"kv_cache_dtype": "fp8"}}
        told = {**environment, "engine": {**environment["engine"], "resolved_config": account}}
        write_result(tmp_path, make_result(run, environment=told))
    rows, _ = merged(plan, tmp_path)
    assert rows["settings_in_force"].null_count == len(plan["runs"])
    wider = {**plan, "swept": [*SWEPT, "pytorch.engine.kv_cache_dtype"]}
    rows, read = merged(wider, tmp_path)
    assert read == len(plan["runs"])
    assert set(rows["settings_in_force"].to_pylist()) == {'{"pytorch.engine.kv_cache_dtype":"fp8"}'}


def test_rows_of_another_version_of_the_analysis_are_read_again(tmp_path, plan, monkeypatch):
    """An installation that follows a clone changes what it works out between two releases."""
    write_complete_study(tmp_path, plan)
    merged(plan, tmp_path)
    assert merged(plan, tmp_path)[1] == 0
    monkeypatch.setattr("llenergymeasure.analysis.merge_cache.ANALYSIS_VERSION", b"next")
    assert merged(plan, tmp_path)[1] == len(plan["runs"])


def test_tables_are_the_same_bytes_with_a_cache_and_without(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    write_tables(tmp_path, partial=False)
    first = {name: (tmp_path / name).read_bytes() for name in TABLE_NAMES}
    write_tables(tmp_path, partial=False)
    from_cache = {name: (tmp_path / name).read_bytes() for name in TABLE_NAMES}
    for name in (*TABLE_NAMES, CACHE_NAME):
        (tmp_path / name).unlink()
    write_tables(tmp_path, partial=False)
    assert {name: (tmp_path / name).read_bytes() for name in TABLE_NAMES} == first == from_cache
