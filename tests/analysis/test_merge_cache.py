"""Merging again reads what is new and nothing else, and is never stale."""

import json
import os
import time
from functools import partial

import pyarrow.parquet as pq
import pytest

from llenergymeasure.analysis import merge
from llenergymeasure.analysis.merge_cache import CACHE_NAME
from llenergymeasure.files import sha256
from llenergymeasure.results.complete import sound_record
from llenergymeasure.results.layout import StudyFolder
from results.synthetic import (
    make_plan,
    make_result,
    vouch_again,
    write_complete_study,
    write_plan,
    write_result,
    write_runs,
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


@pytest.fixture
def first(tmp_path, plan):
    """The table of a whole study, and its cache on disk."""
    write_complete_study(tmp_path, plan)
    table, read = merged(plan, tmp_path)
    assert read == 10
    return table


def run_of(folder, planned):
    return StudyFolder(folder).run(planned["experiment"], planned["cycle"])


def test_the_second_merge_reads_nothing_and_gives_the_same(tmp_path, plan, first):
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


@pytest.mark.usefixtures("first")
def test_another_plan_takes_rows_in_its_own_order(tmp_path, plan):
    runs = [{**run, "order": 11 - run["order"]} for run in plan["runs"]]
    table, read = merged({**plan, "runs": runs}, tmp_path)
    assert read == 0
    assert table["order"].to_pylist() == list(range(1, 11))
    assert table["cycle"].to_pylist() == [run["cycle"] for run in plan["runs"]][::-1]


@pytest.mark.parametrize("name", ["result.json", "run.parquet", "outcome.json"])
def test_a_run_that_is_no_longer_whole_is_not_taken_from_the_cache(tmp_path, plan, name):
    write_complete_study(tmp_path, plan)
    run = run_of(tmp_path, plan["runs"][0])
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


@pytest.mark.usefixtures("first")
def test_a_record_that_is_gone_is_gone_in_spite_of_the_cache(tmp_path, plan):
    run_of(tmp_path, plan["runs"][2]).result.unlink()
    assert merged(plan, tmp_path)[0]["status"].to_pylist()[2] == "missing"


def test_a_file_changed_in_place_with_its_old_size_and_time_is_read_again(tmp_path, plan, first):
    path = run_of(tmp_path, plan["runs"][0]).result
    before = path.stat()
    power_w = f'"power_mean_w":{first["power_mean_w"][0].as_py()}'.encode()
    content = path.read_bytes()
    assert content.count(power_w) == 1
    with path.open("r+b") as stream:
        stream.write(content.replace(power_w, b'"power_mean_w":77.0'.ljust(len(power_w))))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    for name in ("st_size", "st_ino", "st_mtime_ns"):
        assert getattr(after, name) == getattr(before, name)
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
    stamp, last = merge.stamp, str(run_of(tmp_path, plan["runs"][-1]).path)

    def looked_late(run, *when):
        if run == last:
            time.sleep(0.05)  # a time stamp is a tick of the clock old
            os.utime(f"{run}/result.json")
            time.sleep(0.05)
        return stamp(run, *when)

    monkeypatch.setattr(merge, "stamp", looked_late)
    merged(plan, tmp_path)
    monkeypatch.setattr(merge, "stamp", stamp)
    assert merged(plan, tmp_path)[1] == 1


def _with_flipped_bit(content, share):
    changed = bytearray(content)
    changed[int(share * (len(content) - 1))] ^= 1
    return bytes(changed)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda content: content[: len(content) // 2], id="cut"),
        pytest.param(lambda content: content + b"abc", id="stray bytes"),
        *(
            pytest.param(
                partial(_with_flipped_bit, share=share / 8), id=f"bit flipped at {share}/8"
            )
            for share in range(9)
        ),
    ],
)
def test_a_damaged_cache_is_as_good_as_none(tmp_path, plan, first, damage):
    path = tmp_path / CACHE_NAME
    path.write_bytes(damage(path.read_bytes()))
    again, read = merged(plan, tmp_path)
    assert read == 10
    assert again.equals(first)
    assert merged(plan, tmp_path)[1] == 0


def test_records_of_an_older_version_merge_with_those_of_this_one(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    run = run_of(tmp_path, plan["runs"][1])
    pq.write_table(pq.read_table(run.row).drop_columns(["mfu", "host"]), run.row)
    record = json.loads(run.result.read_text())
    del record["quality"], record["environment"]["host"]
    run.result.write_text(json.dumps(record))
    vouch_again(run)
    assert merged(plan, tmp_path)[0]["host"].to_pylist()[:3] == ["node-1", None, "node-1"]


def test_rows_of_another_sweep_are_not_taken(tmp_path, plan):
    engine = {"versions": {}, "resolved_config": {"engine": {"kv_cache_dtype": "fp8"}}}
    write_runs(tmp_path, plan, lambda _: {"environment": {"engine": engine}})
    rows, _ = merged(plan, tmp_path)
    assert rows["settings_in_force"].null_count == 10
    wider = {**plan, "swept": [*SWEPT, "pytorch.engine.kv_cache_dtype"]}
    rows, read = merged(wider, tmp_path)
    assert read == 10
    assert set(rows["settings_in_force"].to_pylist()) == {'{"pytorch.engine.kv_cache_dtype":"fp8"}'}


@pytest.mark.usefixtures("first")
def test_rows_of_another_version_of_the_analysis_are_read_again(tmp_path, plan, monkeypatch):
    """An installation that follows a clone changes what it works out between two releases."""
    monkeypatch.setattr("llenergymeasure.analysis.merge_cache.ANALYSIS_VERSION", b"next")
    assert merged(plan, tmp_path)[1] == 10
