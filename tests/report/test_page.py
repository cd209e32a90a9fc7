"""The page as a whole: what it shows, in which order, and that it is safe, whole and repeatable.

What it claims in words, and when, is in test_claims.py.
"""

import html
import random
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from llenergymeasure.analysis.selection import used_runs
from llenergymeasure.analysis.tables import write_tables
from llenergymeasure.errors import ResultsError
from llenergymeasure.recording.samples import Header, SampleRow, make_samples, write_samples
from llenergymeasure.report.charts import SHOWN_EXPERIMENTS
from llenergymeasure.report.findings import ENERGY_PER_TOKEN, order_trend, trend_sentence
from llenergymeasure.report.page import LISTED_EXPERIMENTS, _linked_figures, write_report
from llenergymeasure.report.plain_text import study_text
from llenergymeasure.report.relations import relations_content
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.results.record import Quality
from llenergymeasure.sensors.base import SensorInfo
from llenergymeasure.validity_codes import DISQUALIFYING
from report.studies import SWEPT, Page, config, machine, page_of, table, write_study
from results.synthetic import (
    GPU,
    make_plan,
    make_result,
    write_complete_study,
    write_outcome,
    write_plan,
    write_result,
    write_runs,
)

FIGURE_FILES = [
    f"figures/{name}.{suffix}"
    for name in (
        *("energy_per_output_token", "energy_per_request", "energy_throughput"),
        *("energy_latency", "energy_order"),
    )
    for suffix in ("svg", "pdf")
]
CONFIGS = [config(1), config(8)]
WRITTEN = {"model": "tiny-llama", "sweep": {"pytorch.batch_size": [1, 8]}}


def by_size(run, one, eight):
    """Return what a run has with batches of one, or of eight."""
    return eight if run["config"]["pytorch"]["batch_size"] == 8 else one


def page(folder: Path, *, partial: bool = False, drawn: bool = False) -> Page:
    write_tables(folder, partial=partial)
    return page_of(folder, partial=partial, drawn=drawn)


@pytest.fixture
def plan():
    return make_plan(CONFIGS, SWEPT)


@pytest.fixture
def complete(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    return tmp_path


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[Path, Page]:
    """A study's folder and its page with all figures, one run of it disqualified."""
    folder = tmp_path_factory.mktemp("drawn")
    plan = {
        **make_plan(CONFIGS, SWEPT),
        "notes": ["swap_space has left vLLM"],
        "execution": {"cycle_order": "shuffled"},
        "written": WRITTEN,
        "overrides": {"n": 4},
    }
    write_complete_study(folder, plan)
    write_result(folder, make_result(plan["runs"][0], validity=["throttled"]), SWEPT)
    return folder, page(folder, drawn=True)


def test_page_states_the_finding_with_its_interval_and_kind(tmp_path, plan):
    write_runs(tmp_path, plan, lambda run: {"energy_j": by_size(run, 1200.0, 400.0) + run["cycle"]})
    text = page(tmp_path).text
    assert "Least energy: batch_size=8 used 201.0 mJ (95 % interval 199.8 to 202.2, n = 3)" in text
    assert "Most: batch_size=1 with 601.0 mJ" in text
    assert "batch_size=8 uses 67 % less energy per output token than batch_size=1" in text
    assert "paired over 3 cycles; p < 0.001" in text
    assert "measured by nvml (GPU)" in text
    assert "±5.0 %" in text
    assert "estimated, not measured" not in text


def test_the_first_lines_say_what_was_measured_on_what(drawn):
    text = drawn[1].text
    head = text[: text.index("Least energy")]
    for words in (
        *("Model tiny-llama", "Device NVIDIA H200", "Engine pytorch; transformers 5.0"),
        *("2026-03-01", "measured by nvml (GPU)"),
    ):
        assert words in head


def test_the_first_lines_name_the_version_of_each_of_three_engines(tmp_path):
    engines = {"pytorch": "torch", "vllm": "vllm", "sglang": "sglang"}
    configs = [{"model": "tiny-llama", "backend": name} for name in engines]

    def record(run):
        versions = {"versions": {engines[run["backend"]]: "1.2"}}
        return {"environment": {"host": "node-1", "engine": versions}}

    write_runs(tmp_path, make_plan(configs, ["backend"]), record)
    text = page(tmp_path).text
    assert "Engine pytorch; torch 1.2; vllm 1.2; sglang 1.2 " in text


def test_what_is_in_no_mean_is_said_above_the_figures(tmp_path, plan):
    write_plan(tmp_path, plan)
    for run in plan["runs"]:
        if run["config"]["pytorch"]["batch_size"] == 1:
            codes = [min(DISQUALIFYING)] if run["cycle"] == 3 else []
            write_result(tmp_path, make_result(run, validity=codes), swept=SWEPT)
        else:
            write_outcome(tmp_path, run, status="failed", phase="load")
    top = page(tmp_path).source.partition("<main")[0]
    assert "1 run stands outside the means: 1 disqualified." in top
    assert "Not ranked, as no run of theirs counts: batch_size=8." in top


def test_the_first_figure_is_energy_against_the_swept_setting(drawn):
    folder, page = drawn
    first = next(attrs["aria-label"] for tag, attrs in page.elements if tag == "svg")
    assert first.startswith(
        "Energy per output token and other quantities against pytorch.batch_size"
    )
    assert (folder / "figures" / "against_pytorch_batch_size.pdf").is_file()


def test_every_figure_is_there_and_drawn_on_the_page(drawn):
    folder, page = drawn
    for name in FIGURE_FILES:
        content = (folder / name).read_bytes()
        assert content.startswith(b"<svg" if name.endswith(".svg") else b"%PDF")
    assert sum(tag == "figure" for tag, _ in page.elements) == 6
    images = [attrs for tag, attrs in page.elements if tag == "svg"]
    assert len(images) == 12
    assert all(image["role"] == "img" and image["aria-label"] for image in images)
    token = (folder / "figures" / "energy_per_output_token.svg").read_text()
    for words in (
        "<title>Energy per output token</title>",
        *("Energy per output token (mJ)", "batch_size=8"),
    ):
        assert words in token
    speed = (folder / "figures" / "energy_throughput.svg").read_text()
    assert "Throughput (output tokens/s)" in speed


@pytest.mark.parametrize("cycles", [1, 4])
def test_a_caption_names_runs_interval_and_meter(tmp_path, cycles):
    write_complete_study(tmp_path, make_plan(CONFIGS, SWEPT, cycles=cycles))
    texts = page(tmp_path).captions()
    means = "Means over 4 runs with 95 % Student t intervals"
    for caption in texts[:3]:
        assert caption.startswith(means if cycles > 1 else "Single runs, without intervals")
    assert "Energy was measured by nvml (GPU)." in texts[1]


def test_values_of_two_machines_stand_in_one_unit_and_captions_name_no_other(tmp_path):
    """The figures show one machine's experiment in mJ, the table has the other's in J."""

    def record(_run, place):
        return {"energy_j": (4e4, 400.0)[place], **machine(f"node-{place}")}

    write_study(tmp_path, record)
    page = page_of(tmp_path)
    assert "batch_size=2 used 0.200 J" in page.text
    assert "batch_size=1 used 20.0 J" in page.text
    assert "J" not in "".join(page.captions())


def test_power_over_time_shows_the_phases_of_a_run_per_experiment(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    for run in plan["runs"]:
        folder = StudyFolder(tmp_path).run(run["experiment"], run["cycle"])
        rows = [
            SampleRow(at_ns, GPU, "nvml", "power_instant_w", 300.0)
            for at_ns in range(0, 400_000_000_000, 500_000_000)
        ]
        info = SensorInfo(GPU, "H200", "nvml", "measured", "gpu")
        header = Header(None, None, "host", 0, "2026-01-01T00:00:00+00:00", (info,))
        write_samples(make_samples(rows, header), folder.samples)
    text = page(tmp_path, drawn=True).text
    assert "Power over time" in text
    svg = (tmp_path / "figures" / "power_over_time.svg").read_text()
    for word in (">W<", "batch_size=8", "measure", "load"):
        assert word in svg
    assert svg.count("Time from the start of the window") == 1
    assert "2 of 6 runs in the means: the one nearest to its mean of each of 2" in text


def test_pairs_with_the_first_experiment_come_first_and_all_are_folded(tmp_path):
    write_study(tmp_path, lambda *_: {}, configs=[config(size) for size in (1, 2, 4)])
    page = page_of(tmp_path)
    assert "Against batch_size=1, the first experiment of the plan" in page.text
    relations = page.source[page.source.index('id="relations"') :]
    visible, _, folded = relations.partition("<details>")
    assert visible.count('scope="row"') - 2 == 2  # two levels, then two pairs
    assert "3 of 3 pairs" in folded


def test_the_page_holds_the_study_file_the_plan_s_notes_and_the_order_of_runs(drawn):
    _, page = drawn
    details = html.unescape(page.source.split("<summary>The study file</summary>")[1])
    file = details.partition('<pre tabindex="0">')[2].partition("</pre>")[0]
    assert yaml.safe_load(file) == WRITTEN
    for words in ("# set over it: n: 4", "swap_space has left vLLM", "Order of runs shuffled"):
        assert words in page.text


def test_what_runs_were_warned_of_is_said_once(tmp_path):
    plan = make_plan(CONFIGS, SWEPT, cycles=2)
    write_complete_study(tmp_path, plan)
    for place, run in enumerate(plan["runs"]):
        result = make_result(run)
        warned = [{"key": "gpu", "message": f"a process (pid {place}) has 3 MB of GPU-{place}"}]
        cut = ["prompts were cut to 9 tokens"] if place == 3 else []
        result.provenance.update(preflight=warned, workload={"notes": cut})
        write_result(tmp_path, result, swept=SWEPT)
    text = page(tmp_path).text
    assert text.count("has 3 MB") == 1
    assert "prompts were cut to 9 tokens (noted in 1 run)" in text


def test_page_is_whole_and_loads_nothing(drawn):
    _, page = drawn
    assert page.tags().isdisjoint({"script", "link", "img", "iframe", "object", "embed"})
    addresses = set(re.findall(r"""[a-z]+://[^\s"'<>]+""", page.source))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "@import" not in page.source
    assert "url(" not in page.source
    policy = [attrs for tag, attrs in page.elements if attrs.get("http-equiv")]
    assert policy[0]["content"].startswith("default-src 'none'")


def test_ids_are_unique_links_lead_somewhere_and_the_keyboard_reaches_what_scrolls(drawn):
    _, page = drawn
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = [attrs["href"] for tag, attrs in page.elements if tag == "a"]
    assert targets
    assert {target[1:] for target in targets if target.startswith("#")} <= set(ids)
    named = {attrs["aria-labelledby"] for _, attrs in page.elements if "aria-labelledby" in attrs}
    assert named <= set(ids)
    scrolling = [attrs for _, attrs in page.elements if attrs.get("class") == "scroll"]
    assert scrolling
    assert all(attrs.get("tabindex") == "0" for attrs in scrolling)


def test_regions_have_names_of_their_own_and_every_column_has_a_title(complete):
    write_tables(complete, partial=False)
    runs = pq.read_table(complete / "runs.parquet")
    offered = runs.schema.get_field_index("offered_requests_per_s")
    field = runs.schema.field(offered)
    pq.write_table(runs.set_column(offered, field, [[1.0] * len(runs)]), complete / "runs.parquet")
    source = page_of(complete).source
    titles = dict(re.findall(r'<h2 id="([^"]+)">([^<]*)</h2>', source))
    sections = [titles[part] for part in re.findall(r'<section aria-labelledby="([^"]+)">', source)]
    tables = re.findall(r'role="region" aria-label="([^"]*)"', source)
    assert "Under traffic" in sections
    assert "Table of runs under traffic" in tables
    assert len({*sections, *tables}) == len(sections) + len(tables)
    assert '<th scope="col"></th>' not in source


def test_figures_of_an_earlier_report_that_this_one_has_not_are_gone(complete):
    """They show runs that the study has no longer, and a crate or a notebook would show them."""
    figures = complete / "figures"
    figures.mkdir()
    stale = [figures / name for name in ("against_model.svg", "energy_quality.pdf")]
    user_files = [
        figures / name
        for name in ("mine.svg", "against_mine.svg", "power_over_time.pdf", "against_model.txt")
    ]
    for path in (*stale, *user_files):
        path.write_text("drawn")
    links = "".join(f'<a href="figures/{path.stem}.svg">SVG</a>' for path in stale)
    (complete / "report.html").write_text(f"{links} figures/mine.svg")
    page(complete)
    assert not any(path.exists() for path in stale)
    assert all(path.exists() for path in user_files)
    names = {path.stem for path in figures.glob("*.pdf")} - {"power_over_time"}
    assert _linked_figures(complete / "report.html") == names
    assert (figures / "against_pytorch_batch_size.svg").is_file()


def test_the_same_study_gives_the_same_bytes(drawn, tmp_path):
    folder, _ = drawn
    shutil.copytree(folder, tmp_path / "again", ignore=lambda *_: {"report.html", "figures"})
    page(tmp_path / "again", drawn=True)
    for name in ("report.html", *(name for name in FIGURE_FILES if name.endswith(".svg"))):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_partial_report_is_older_than_any_input(complete):
    page(complete, partial=True)
    for name in ("report.html", *FIGURE_FILES):
        assert (complete / name).stat().st_mtime == 86400


def test_hostile_text_is_shown_and_never_run(tmp_path):
    nasty = (
        "</title></svg><script>alert('x')</script><img src=x onerror=alert(1)>{{7*7}}\x1b[0m\u202e"
    )
    configs = [{**CONFIGS[0], "model": nasty}, CONFIGS[1]]
    left_out = [{"config": {"model": nasty, nasty: 1}, "reason": nasty}]
    plan = make_plan(configs, ["model", *SWEPT], study=nasty, left_out=left_out)
    write_plan(tmp_path, plan)
    error = {"class": nasty, "message": nasty}
    write_outcome(tmp_path, plan["runs"][0], status="failed", phase=nasty, error=error)
    for run in plan["runs"][1:]:
        write_result(tmp_path, make_result(run, validity=[nasty], runner=nasty, source=nasty))
    shown = page(tmp_path, partial=True, drawn=True)
    assert shown.tags().isdisjoint({"script", "img"})
    assert not any(name.startswith("on") for _, attrs in shown.elements for name in attrs)
    assert "<script>alert('x')</script>" in shown.text
    assert "{{7*7}}" in shown.text
    assert "\u202e" not in shown.text
    assert "\x1b" not in shown.text
    svg = (tmp_path / "figures" / "energy_per_output_token.svg").read_text()
    assert "<script" not in svg


def test_failures_name_phase_error_advice_and_log(complete, plan):
    run = plan["runs"][0]
    (complete / "runs" / run["experiment"] / "1" / "result.json").unlink()
    error = {"class": "ModuleNotFoundError", "message": "No module named 'vllm'"}
    write_outcome(complete, run, status="failed", phase="load", error=error)
    shown = page(complete, partial=True)
    assert "1 run has no result." in shown.text
    assert "1 run failed in phase load: ModuleNotFoundError" in shown.text
    assert "No module named 'vllm'" in shown.text
    assert "install the backend's requirements file" in shown.text
    links = {attrs.get("href") for tag, attrs in shown.elements if tag == "a"}
    assert f"runs/{run['experiment']}/1/run.log" in links


def test_study_of_which_every_run_failed_still_has_a_report_that_says_so(tmp_path, plan):
    write_plan(tmp_path, plan)
    for run in plan["runs"]:
        write_outcome(tmp_path, run, status="failed", phase="load")
    text = page(tmp_path, partial=True, drawn=True).text
    assert "No run completed: there is no energy to report." in text
    assert "6 runs have no result." in text
    assert all((tmp_path / name).stat().st_size > 0 for name in FIGURE_FILES)


def drifting(folder, cycles=6, *, mixed=True, jump=0.0, slope=0.02):
    """Write a study whose energy rises with the order, and jumps between cycles."""
    plan = make_plan(CONFIGS, SWEPT, cycles=cycles)
    for run in plan["runs"]:
        if mixed and run["cycle"] % 2:
            run["order"] += 1 if run["order"] % 2 else -1
    jumps = random.Random(1)
    factors = [1 + jumps.gauss(0, jump) for _ in range(cycles)]

    def record(run):
        noise = 1 + 0.001 * (run["order"] * 7 % 5)
        return {"energy_j": 1000 * (1 + slope * run["order"]) * factors[run["cycle"] - 1] * noise}

    write_runs(folder, plan, record)


@pytest.mark.parametrize(
    ("study", "sentence"),
    [
        ({}, "Energy drifted with the order"),
        ({"slope": 0.0, "jump": 0.03}, "No drift with the order shows"),
        ({"mixed": False}, "Whether energy drifted over the study is not known"),
        ({"cycles": 1}, "Whether energy drifted over the study is not known"),
    ],
    ids=["drift", "cycles that jump", "always the same order", "one cycle"],
)
def test_no_drift_is_claimed_that_the_runs_do_not_show(tmp_path, study, sentence):
    drifting(tmp_path, **study)
    write_tables(tmp_path, partial=False)
    runs = table(tmp_path, "runs")
    assert trend_sentence(order_trend(runs, used_runs(runs))).startswith(sentence)


def test_levels_show_the_p_value_corrected_for_all_of_them(tmp_path):
    noise = random.Random(3)
    configs = [config(size) for size in (1, 2, 4, 8)]
    write_study(tmp_path, lambda *_: {"energy_j": noise.gauss(1000, 10)}, configs=configs)
    levels = [row for row in table(tmp_path, "levels") if row["metric"] == ENERGY_PER_TOKEN]
    shown = relations_content(tmp_path, table(tmp_path, "summary")).levels
    corrected = [row["p_holm"] for row in levels]
    assert [float(row["p"]) for row in shown] == [pytest.approx(p, rel=0.05) for p in corrected]
    assert corrected != [row["p"] for row in levels]


def test_one_experiment_alone_is_best_of_nothing_and_differs_from_nothing(tmp_path, plan):
    alone = plan["runs"][0]["experiment"]
    write_plan(tmp_path, plan)
    for run in plan["runs"]:
        if run["experiment"] == alone:
            write_result(tmp_path, make_result(run))
    write_tables(tmp_path, partial=True)
    relations = relations_content(tmp_path, table(tmp_path, "summary"))
    assert (relations.levels, relations.pairs, relations.fronts) == ([], [], [])


def test_large_studies_are_cut_with_a_word(tmp_path, monkeypatch):
    assert (LISTED_EXPERIMENTS, SHOWN_EXPERIMENTS) == (200, 40)
    for name, count in (("page.LISTED", 4), ("page.SHOWN", 2), ("charts.SHOWN", 2)):
        monkeypatch.setattr(f"llenergymeasure.report.{name}_EXPERIMENTS", count)
    configs = [config(size) for size in range(1, 6)]
    write_complete_study(tmp_path, make_plan(configs, SWEPT, cycles=1))
    text = page(tmp_path).text
    assert "The first 4 of 5 are shown." in text
    assert "The 2 with the least energy are drawn" in text


@pytest.mark.parametrize("read", [study_text, lambda folder: write_report(folder, partial=False)])
def test_what_is_read_needs_the_tables(tmp_path, plan, read):
    write_plan(tmp_path, plan)
    with pytest.raises(ResultsError, match=r"llem report .* merges the study's runs"):
        read(tmp_path)


def test_a_judged_study_shows_energy_against_quality_and_of_a_right_answer(tmp_path):
    right = (32, 28, 0)

    def record(run, place):
        score = Quality(score=right[place] / 40, correct=right[place], items=40)
        return {"energy_j": (1000.0, 800.0, 1000.0)[place] + run["cycle"], "quality": score}

    configs = [{**config(1), "precision": name} for name in ("fp32", "bf16", "fp16")]
    write_study(tmp_path, record, configs=configs, swept=["precision"], cycles=3)
    source = page_of(tmp_path, drawn=True).source
    assert '<h2 id="quality">' in source
    assert "<td>70 %</td><td>57." in source
    # Without a right answer there is no energy of one, and the row says so.
    assert '<td>0 %</td><td>-</td><td class="left">no answer was right</td>' in source
    drawing = (tmp_path / "figures" / "energy_quality.svg").read_text()
    assert "Quality score" in drawing
    assert "()" not in drawing
