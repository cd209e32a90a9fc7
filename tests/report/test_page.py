import contextlib
import html
import html.parser
import random
import re

import pytest
import yaml

from llenergymeasure.analysis.selection import used_runs
from llenergymeasure.analysis.tables import read_table, write_tables
from llenergymeasure.errors import ResultsError
from llenergymeasure.recording.samples import Header, SampleRow, make_samples, write_samples
from llenergymeasure.report.charts import SHOWN_EXPERIMENTS
from llenergymeasure.report.findings import ENERGY_PER_TOKEN, order_trend, trend_sentence
from llenergymeasure.report.page import LISTED_EXPERIMENTS, _linked_figures, write_report
from llenergymeasure.report.relations import relations_content
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.results.record import Quality
from llenergymeasure.results.serving import Latency, Serving
from llenergymeasure.sensors.base import SensorInfo
from llenergymeasure.validity_codes import DISQUALIFYING
from report.studies import without_drawing
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

SWEPT = ["pytorch.batch_size"]
FIGURE_FILES = [
    f"figures/{name}.{suffix}"
    for name in (
        *("energy_per_output_token", "energy_per_request", "energy_throughput"),
        *("energy_latency", "energy_order"),
    )
    for suffix in ("svg", "pdf")
]
H200, A100 = (
    {"host": host, "gpus": [{"uuid": GPU, "name": name, "driver": "570.1"}]}
    for host, name in (("node-1", "NVIDIA H200"), ("node-2", "NVIDIA A100"))
)
CONFIGS = [
    {"model": "tiny-llama", "precision": "bf16", "pytorch": {"batch_size": size}} for size in (1, 8)
]


class Page(html.parser.HTMLParser):
    """The page as a browser takes it: its elements, their attributes, and its text."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.words, self._hidden = [], [], 0
        self.feed(source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._hidden += tag == "style"

    def handle_endtag(self, tag):
        self._hidden -= tag == "style"

    def handle_data(self, data):
        if not self._hidden:
            self.words.append(data)

    def tags(self):
        return {tag for tag, _ in self.elements}


def by_size(run, one, eight):
    """Return what a run has with batches of one, or of eight."""
    return eight if run["config"]["pytorch"]["batch_size"] == 8 else one


def report(folder, *, partial=False, drawn=False):
    """Write a report and read its page; most of its time goes into drawing its figures."""
    write_tables(folder, partial=partial)
    with contextlib.nullcontext() if drawn else without_drawing():
        write_report(folder, partial=partial)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture
def plan():
    return make_plan(CONFIGS, SWEPT)


@pytest.fixture
def complete(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    return tmp_path


def test_page_states_the_finding_with_its_interval_and_kind(tmp_path, plan):
    write_runs(tmp_path, plan, lambda run: {"energy_j": by_size(run, 1200.0, 400.0) + run["cycle"]})
    text = report(tmp_path).text
    assert "Least energy: batch_size=8 used 201.0 mJ (95 % interval 199.8 to 202.2, n = 3)" in text
    assert "Most: batch_size=1 with 601.0 mJ" in text
    assert "batch_size=8 uses 67 % less energy per output token than batch_size=1" in text
    assert "paired over 3 cycles; p < 0.001" in text
    assert "measured by nvml (GPU)" in text
    assert "±5.0 %" in text
    assert "estimated, not measured" not in text


def test_pairs_by_cycle_part_what_overlapping_intervals_do_not(tmp_path, plan):
    def record(run):
        level = (1000.0, 1200.0, 1401.0)[run["cycle"] - 1]
        return {"energy_j": by_size(run, 1.0, 0.9) * level + run["cycle"] % 2}

    write_runs(tmp_path, plan, record)
    text = report(tmp_path).text
    assert "Inconclusive" not in text
    assert "batch_size=8 uses 10.0 % less energy per output token than batch_size=1" in text


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
    page = report(tmp_path, drawn=True)
    assert "Power over time" in page.text
    svg = (tmp_path / "figures" / "power_over_time.svg").read_text()
    for word in (">W<", "batch_size=8", "measure", "load"):
        assert word in svg
    assert svg.count("Time from the start of the window") == 1
    assert "2 of 6 runs in the means: the one nearest to its mean of each of 2" in page.text


def test_a_study_without_samples_has_no_power_over_time(complete):
    assert "Power over time" not in report(complete).text


def test_pairs_with_the_first_experiment_come_first_and_all_are_folded(tmp_path):
    configs = [{**CONFIGS[0], "pytorch": {"batch_size": size}} for size in (1, 2, 4)]
    write_complete_study(tmp_path, make_plan(configs, SWEPT))
    page = report(tmp_path)
    assert "Against batch_size=1, the first experiment of the plan" in page.text
    source = (tmp_path / "report.html").read_text()
    visible, _, folded = source[source.index('id="relations"') :].partition("<details>")
    assert visible.count('scope="row"') - 2 == 2  # two levels, then two pairs
    assert "3 of 3 pairs" in folded


def test_the_page_holds_the_study_file(tmp_path, plan):
    written = {"model": "tiny-llama", "sweep": {"pytorch.batch_size": [1, 8]}}
    write_complete_study(tmp_path, {**plan, "written": written, "overrides": {"n": 4}})
    page = report(tmp_path)
    text = (tmp_path / "report.html").read_text()
    details = html.unescape(text.split("<summary>The study file</summary>")[1])
    file = details.partition('<pre tabindex="0">')[2].partition("</pre>")[0]
    assert yaml.safe_load(file) == written
    assert "# set over it: n: 4" in page.text


def test_the_first_lines_say_what_was_measured_on_what(complete):
    text = report(complete).text
    head = text[: text.index("Least energy")]
    for words in ("Model tiny-llama", "Device NVIDIA H200", "Engine pytorch; transformers 5.0"):
        assert words in head
    assert "2026-03-01" in head
    assert "measured by nvml (GPU)" in head


def test_the_first_figure_is_energy_against_the_swept_setting(complete):
    page = report(complete)
    first = next(attrs["aria-label"] for tag, attrs in page.elements if tag == "svg")
    assert first.startswith(
        "Energy per output token and other quantities against pytorch.batch_size"
    )
    assert (complete / "figures" / "against_pytorch_batch_size.pdf").is_file()


def test_notes_of_the_plan_are_passed_on(tmp_path, plan):
    write_complete_study(tmp_path, {**plan, "notes": ["swap_space has left vLLM"]})
    assert "swap_space has left vLLM" in report(tmp_path).text


def test_what_runs_were_warned_of_is_said_once(tmp_path):
    plan = make_plan(CONFIGS, SWEPT, cycles=2)
    write_complete_study(tmp_path, plan)
    for place, run in enumerate(plan["runs"]):
        result = make_result(run)
        warned = [{"key": "gpu", "message": f"a process (pid {place}) has 3 MB of GPU-{place}"}]
        cut = ["prompts were cut to 9 tokens"] if place == 3 else []
        result.provenance.update(preflight=warned, workload={"notes": cut})
        write_result(tmp_path, result, swept=SWEPT)
    page = report(tmp_path)
    text = page if isinstance(page, str) else page.text
    assert text.count("has 3 MB") == 1
    assert "prompts were cut to 9 tokens (noted in 1 run)" in text


def test_wide_intervals_ask_for_more_cycles(tmp_path):
    plan = make_plan(CONFIGS[:1], SWEPT, cycles=2)
    write_runs(tmp_path, plan, lambda run: {"energy_j": 1000.0 + 100 * run["cycle"]})
    text = report(tmp_path).text
    assert "The interval is wide, it reaches" in text
    assert "above the mean: more cycles" in text


def test_single_runs_get_no_interval(tmp_path):
    plan = make_plan(CONFIGS, SWEPT, cycles=1)
    write_complete_study(tmp_path, plan)
    text = report(tmp_path).text
    assert "one run, no interval" in text
    assert "Inconclusive: no difference between batch_size=" in text
    assert "it needs two runs of each, there are 1 and 1" in text
    assert "Least energy" not in text


def test_estimated_energy_is_said_so_loudly(tmp_path, plan):
    write_complete_study(tmp_path, plan, kind="estimated", source="codecarbon")
    text = report(tmp_path).text
    assert "Estimated, not measured." in text
    assert "estimated, not measured, by codecarbon (CPU)" in text
    assert "is estimated to use" in text


def test_estimated_is_not_ranked_against_measured(tmp_path, plan):
    cheap = {"kind": "estimated", "source": "codecarbon", "energy_j": 1.0}
    write_runs(tmp_path, plan, lambda run: by_size(run, {}, cheap))
    text = report(tmp_path).text
    assert "batch_size=8 is not ranked with the rest: energy is measured by nvml" in text
    # The figures show the measured one alone.
    assert "hollow" not in text
    assert "1 experiment that may not be compared with these is in the table alone" in text
    assert "Least energy" not in text
    assert "batch_size=1 used" in text


def test_page_is_whole_and_loads_nothing(complete):
    page = report(complete, drawn=True)
    assert page.tags().isdisjoint({"script", "link", "img", "iframe", "object", "embed"})
    source = (complete / "report.html").read_text()
    addresses = set(re.findall(r"""[a-z]+://[^\s"'<>]+""", source))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "@import" not in source
    assert "url(" not in source
    policy = [attrs for tag, attrs in page.elements if attrs.get("http-equiv")]
    assert policy[0]["content"].startswith("default-src 'none'")


def test_ids_are_unique_and_links_lead_somewhere(complete, plan):
    write_result(complete, make_result(plan["runs"][0], validity=["throttled"]))
    page = report(complete, drawn=True)
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = [attrs["href"] for tag, attrs in page.elements if tag == "a"]
    assert targets
    assert {target[1:] for target in targets if target.startswith("#")} <= set(ids)
    named = {attrs["aria-labelledby"] for _, attrs in page.elements if "aria-labelledby" in attrs}
    assert named <= set(ids)


def test_scrolling_parts_can_be_reached_by_keyboard(complete):
    scrolling = [attrs for _, attrs in report(complete).elements if attrs.get("class") == "scroll"]
    assert scrolling
    assert all(attrs.get("tabindex") == "0" for attrs in scrolling)


def test_regions_have_names_of_their_own_and_every_column_has_a_title(tmp_path, plan):
    latency = Latency(p50_s=1.0)
    traffic = Serving(
        arrivals="poisson",
        endpoint="chat",
        ramp_up="steady",
        requests_sent=20,
        requests_completed=20,
        requests_failed=0,
        failures={},
        requests_resent=0,
        offered_requests_per_s=1.0,
        completed_requests_per_s=1.0,
        time_to_first_token=latency,
        inter_token_latency=latency,
        time_per_output_token=latency,
        request_latency=latency,
        tokens_per_part=1.0,
        in_flight_mean=1.0,
        in_flight_max=2,
        in_flight_growth_per_s=0.0,
        over_saturated=False,
        send_lateness_p50_s=0.0,
        send_lateness_p99_s=0.0,
        send_lateness_max_s=0.0,
        client_cpu_share=0.1,
        input_tokens_checked=0,
        input_tokens_differ=0,
        timeline=[],
    )
    write_runs(tmp_path, plan, lambda run: {"serving": traffic, "energy_j": 900.0 + run["cycle"]})
    report(tmp_path)
    source = (tmp_path / "report.html").read_text()
    titles = dict(re.findall(r'<h2 id="([^"]+)">([^<]*)</h2>', source))
    sections = [titles[part] for part in re.findall(r'<section aria-labelledby="([^"]+)">', source)]
    tables = re.findall(r'role="region" aria-label="([^"]*)"', source)
    assert "Under traffic" in sections
    assert "Table of runs under traffic" in tables
    assert len({*sections, *tables}) == len(sections) + len(tables)
    assert '<th scope="col"></th>' not in source


def test_every_figure_is_there_and_drawn_on_the_page(complete):
    page = report(complete, drawn=True)
    for name in FIGURE_FILES:
        content = (complete / name).read_bytes()
        assert content.startswith(b"<svg" if name.endswith(".svg") else b"%PDF")
    assert sum(tag == "figure" for tag, _ in page.elements) == 6
    images = [attrs for tag, attrs in page.elements if tag == "svg"]
    assert len(images) == 12
    assert all(image["role"] == "img" and image["aria-label"] for image in images)
    assert (
        "<title>Energy per output token</title>"
        in (complete / "figures" / "energy_per_output_token.svg").read_text()
    )
    token = (complete / "figures" / "energy_per_output_token.svg").read_text()
    assert "Energy per output token (mJ)" in token
    assert "batch_size=8" in token
    speed = (complete / "figures" / "energy_throughput.svg").read_text()
    assert "Throughput (output tokens/s)" in speed


def test_figures_of_an_earlier_report_that_this_one_has_not_are_gone(tmp_path, plan):
    """They show runs that the study has no longer, and a crate or a notebook would show them."""
    write_plan(tmp_path, plan)
    for run in plan["runs"]:
        write_result(tmp_path, make_result(run), plan["swept"])
    stale = [tmp_path / "figures" / name for name in ("against_model.svg", "energy_quality.pdf")]
    user_files = [
        tmp_path / "figures" / name
        for name in ("mine.svg", "against_mine.svg", "power_over_time.pdf", "against_model.txt")
    ]
    user_files[0].parent.mkdir()
    for path in (*stale, *user_files):
        path.write_text("drawn")
    links = "".join(f'<a href="figures/{path.stem}.svg">SVG</a>' for path in stale)
    (tmp_path / "report.html").write_text(f"{links} figures/mine.svg")
    report(tmp_path)
    assert not any(path.exists() for path in stale)
    assert all(path.exists() for path in user_files)
    names = {path.stem for path in (tmp_path / "figures").glob("*.pdf")} - {"power_over_time"}
    assert _linked_figures(tmp_path / "report.html") == names
    assert (tmp_path / "figures" / "against_pytorch_batch_size.svg").is_file()


def test_the_same_study_gives_the_same_bytes(tmp_path, plan):
    drawings = [name for name in FIGURE_FILES if name.endswith(".svg")]
    names = ("report.html", *drawings)
    for folder in ("one", "two"):
        write_complete_study(tmp_path / folder, plan)
        report(tmp_path / folder, drawn=True)
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_partial_report_is_older_than_any_input(complete):
    report(complete, partial=True)
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
    page = report(tmp_path, partial=True, drawn=True)
    assert page.tags().isdisjoint({"script", "img"})
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert "<script>alert('x')</script>" in page.text
    assert "{{7*7}}" in page.text
    assert "\u202e" not in page.text
    assert "\x1b" not in page.text
    svg = (tmp_path / "figures" / "energy_per_output_token.svg").read_text()
    assert "<script" not in svg


def test_failures_name_phase_error_advice_and_log(complete, plan):
    run = plan["runs"][0]
    (complete / "runs" / run["experiment"] / "1" / "result.json").unlink()
    error = {"class": "ModuleNotFoundError", "message": "No module named 'vllm'"}
    write_outcome(complete, run, status="failed", phase="load", error=error)
    page = report(complete, partial=True)
    assert "1 run has no result." in page.text
    assert "1 run failed in phase load: ModuleNotFoundError" in page.text
    assert "No module named 'vllm'" in page.text
    assert "install the backend's requirements file" in page.text
    links = {attrs.get("href") for tag, attrs in page.elements if tag == "a"}
    assert f"runs/{run['experiment']}/1/run.log" in links


def test_study_of_which_every_run_failed_still_has_a_report_that_says_so(tmp_path, plan):
    write_plan(tmp_path, plan)
    for run in plan["runs"]:
        write_outcome(tmp_path, run, status="failed", phase="load")
    text = report(tmp_path, partial=True, drawn=True).text
    assert "No run completed: there is no energy to report." in text
    assert "6 runs have no result." in text
    assert all((tmp_path / name).stat().st_size > 0 for name in FIGURE_FILES)


def test_study_of_which_every_run_is_disqualified_says_so(tmp_path, plan):
    code = min(DISQUALIFYING)
    write_complete_study(tmp_path, plan, validity=[code])
    text = report(tmp_path).text
    assert "Every completed run was disqualified: there is no mean to report." in text
    assert "left out of means" in text


def test_energy_that_was_not_observed_has_its_reason(tmp_path, plan):
    write_runs(tmp_path, plan, lambda _: {"energy_j": None})
    assert "No energy was observed: no sensor." in report(tmp_path).text


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


def test_drift_with_the_order_is_told(tmp_path):
    drifting(tmp_path)
    assert "Energy drifted with the order" in report(tmp_path).text


@pytest.mark.parametrize(
    ("study", "sentence"),
    [
        ({"slope": 0.0, "jump": 0.03}, "No drift with the order shows"),
        ({"mixed": False}, "Whether energy drifted over the study is not known"),
        ({"cycles": 1}, "Whether energy drifted over the study is not known"),
    ],
    ids=["cycles that jump", "always the same order", "one cycle"],
)
def test_no_drift_is_claimed_that_the_runs_do_not_show(tmp_path, study, sentence):
    drifting(tmp_path, **study)
    write_tables(tmp_path, partial=False)
    runs = read_table(tmp_path, "runs.parquet").to_pylist()
    assert trend_sentence(order_trend(runs, used_runs(runs))).startswith(sentence)


def test_levels_show_the_p_value_corrected_for_all_of_them(tmp_path):
    configs = [
        {"model": "tiny-llama", "precision": "bf16", "pytorch": {"batch_size": size}}
        for size in (1, 2, 4, 8)
    ]
    plan = make_plan(configs, SWEPT, cycles=5)
    noise = random.Random(3)
    write_runs(tmp_path, plan, lambda _: {"energy_j": noise.gauss(1000, 10)})
    write_tables(tmp_path, partial=False)
    levels = read_table(tmp_path, "levels.parquet").to_pylist()
    corrected = [row["p_holm"] for row in levels if row["metric"] == ENERGY_PER_TOKEN]
    p_values = [
        float(row["p"])
        for row in relations_content(
            tmp_path, read_table(tmp_path, "summary.parquet").to_pylist()
        ).levels
    ]
    assert p_values == [pytest.approx(p, rel=0.05) for p in corrected]
    assert corrected != [row["p"] for row in levels if row["metric"] == ENERGY_PER_TOKEN]


def test_one_experiment_alone_is_best_of_nothing_and_differs_from_nothing(tmp_path, plan):
    alone = plan["runs"][0]["experiment"]
    write_plan(tmp_path, plan)
    for run in plan["runs"]:
        if run["experiment"] == alone:
            write_result(tmp_path, make_result(run))
    write_tables(tmp_path, partial=True)
    relations = relations_content(tmp_path, read_table(tmp_path, "summary.parquet").to_pylist())
    assert (relations.levels, relations.pairs, relations.fronts) == ([], [], [])


def test_machines_that_differ_are_named(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    result = make_result(plan["runs"][0])
    moved = result.model_copy(update={"environment": {**result.environment, "host": "node-2"}})
    write_result(tmp_path, moved)
    assert "The runs differ in host" in report(tmp_path).text


def test_large_studies_are_cut_with_a_word(tmp_path, monkeypatch):
    assert (LISTED_EXPERIMENTS, SHOWN_EXPERIMENTS) == (200, 40)
    for name, count in (("page.LISTED", 4), ("page.SHOWN", 2), ("charts.SHOWN", 2)):
        monkeypatch.setattr(f"llenergymeasure.report.{name}_EXPERIMENTS", count)
    configs = [{**CONFIGS[0], "pytorch": {"batch_size": size}} for size in range(1, 6)]
    write_complete_study(tmp_path, make_plan(configs, SWEPT, cycles=1))
    text = report(tmp_path).text
    assert "The first 4 of 5 are shown." in text
    assert "The 2 with the least energy are drawn" in text


def test_report_needs_the_tables(tmp_path, plan):
    write_plan(tmp_path, plan)
    with pytest.raises(ResultsError, match=r"llem report .* merges the study's runs"):
        write_report(tmp_path, partial=False)


def test_a_judged_study_shows_energy_against_quality_and_of_a_right_answer(tmp_path):
    plan = make_plan(
        [{"model": "tiny-llama", "precision": p} for p in ("fp32", "bf16", "fp16")], ["precision"]
    )

    def record(run):
        low = run["config"]["precision"] == "bf16"
        right = {"fp32": 32, "bf16": 28, "fp16": 0}[run["config"]["precision"]]
        score = Quality(score=right / 40, correct=right, items=40)
        return {"energy_j": (800.0 if low else 1000.0) + run["cycle"], "quality": score}

    write_runs(tmp_path, plan, record)
    write_tables(tmp_path, partial=False)
    write_report(tmp_path, partial=False)
    page = (tmp_path / "report.html").read_text()
    assert '<h2 id="quality">' in page
    assert "<td>70 %</td><td>57." in page
    # Without a right answer there is no energy of one, and the row says so.
    assert '<td>0 %</td><td>-</td><td class="left">no answer was right</td>' in page
    drawing = (tmp_path / "figures" / "energy_quality.svg").read_text()
    assert "Quality score" in drawing
    assert "()" not in drawing


@pytest.mark.parametrize(("factor", "noted"), [(1.02, False), (1.5, True)])
def test_answers_of_unlike_length_stand_with_the_energy_of_requests(tmp_path, plan, factor, noted):
    write_plan(tmp_path, plan)
    for run in plan["runs"]:
        result = make_result(run, energy_j=1000.0 + run["cycle"])
        if run["config"]["pytorch"]["batch_size"] == 8:
            tokens = result.tokens.model_copy(update={"output": round(2000 * factor)})
            result = result.model_copy(update={"tokens": tokens})
        write_result(tmp_path, result)
    text = report(tmp_path).text
    note = "Where two settings had the same prompts, and each request an energy of its own, llem"
    assert (f"Energy per output token compares them better. {note} compare" in text) is noted
    assert ("Answers are 100 to 150 output tokens long" in text) is noted
    # In the order of the table's columns: B, of batches of 8, against A.
    assert ("the answers' length (150 and 100 tokens)" in text) is noted
    assert "the answers' length (100 and 150 tokens)" not in text


def test_how_much_of_the_answers_was_thought_is_said_where_there_was_any(tmp_path, plan):
    write_plan(tmp_path, plan)
    for run in plan["runs"]:
        result = make_result(run, energy_j=1000.0)
        if run["config"]["pytorch"]["batch_size"] == 8:
            thinking = result.tokens.output * 3 // 4 if run["cycle"] == 1 else None
            tokens = result.tokens.model_copy(update={"thinking": thinking})
            result = result.model_copy(update={"tokens": tokens})
        write_result(tmp_path, result)
    text = report(tmp_path).text
    assert "Of the output tokens a model's thought before its answer is 25 % with " in text
    assert "batch_size=8. Its energy, and that of the answers, is in the columns" in text


def test_a_model_without_thought_has_no_word_of_it(tmp_path, plan):
    write_plan(tmp_path, plan)
    for run in plan["runs"]:
        write_result(tmp_path, make_result(run, energy_j=1000.0))
    assert "thought" not in report(tmp_path).text


def test_runs_of_two_versions_are_not_said_to_be_of_two_machines(tmp_path, plan):
    def record(run):
        return {"provenance": {"llenergymeasure_version": f"0.{run['cycle']}.0"}}

    write_runs(tmp_path, plan, record)
    text = report(tmp_path).text
    assert "The runs differ in version of LLenergyMeasure." in text
    assert "Not one machine" not in text


def captions(page):
    parts = re.findall(r"<figcaption>(.*?)</figcaption>", page, re.DOTALL)
    return [" ".join(part.split()) for part in parts]


def test_what_is_in_no_mean_is_said_above_the_figures(tmp_path, plan):
    write_plan(tmp_path, plan)
    for run in plan["runs"]:
        if run["config"]["pytorch"]["batch_size"] == 1:
            codes = [min(DISQUALIFYING)] if run["cycle"] == 3 else []
            write_result(tmp_path, make_result(run, validity=codes), swept=SWEPT)
        else:
            write_outcome(tmp_path, run, status="failed", phase="load")
    report(tmp_path)
    top = (tmp_path / "report.html").read_text().partition("<main")[0]
    assert "1 run stands outside the means: 1 disqualified." in top
    assert "Not ranked, as no run of theirs counts: batch_size=8." in top


@pytest.mark.parametrize("cycles", [1, 4])
def test_a_caption_names_runs_interval_and_meter(tmp_path, cycles):
    write_complete_study(tmp_path, make_plan(CONFIGS, SWEPT, cycles=cycles))
    report(tmp_path)
    texts = captions((tmp_path / "report.html").read_text())
    means = "Means over 4 runs with 95 % Student t intervals"
    for caption in texts[:3]:
        assert caption.startswith(means if cycles > 1 else "Single runs, without intervals")
    assert "Energy was measured by nvml (GPU)." in texts[1]
    assert ("dashed line" in texts[1]) == (cycles == 1)
    assert any("intervals, often" in caption for caption in texts) == (cycles > 1)


def test_a_caption_speaks_of_no_interval_where_there_is_none(tmp_path):
    """A model's estimate has no uncertainty of its own; without energy nothing is drawn."""

    def first_captions(name, record, cycles=3):
        write_runs(tmp_path / name, make_plan(CONFIGS, SWEPT, cycles=cycles), record)
        report(tmp_path / name)
        return captions((tmp_path / name / "report.html").read_text())

    def estimated(run):
        energy = make_result(run, kind="estimated", source="codecarbon").energy
        return {"energy": energy.model_copy(update={"u95_j": None, "u_sys_j": None})}

    assert not [caption for caption in first_captions("one", estimated, 1) if "dashed" in caption]
    texts = first_captions("none", lambda _: {"energy_j": None})
    assert texts[0].startswith("No experiment has a mean of energy.")
    assert not [caption for caption in texts[:3] if "interval" in caption or "Single" in caption]


def test_an_experiment_that_is_not_ranked_is_named_once(tmp_path, plan):
    """Its runs are disqualified, and on another machine."""

    def record(run):
        disqualified = {"validity": [min(DISQUALIFYING)], "environment": A100}
        return by_size(run, {"environment": H200}, disqualified)

    write_runs(tmp_path, plan, record)
    text = report(tmp_path).text
    assert "Not ranked, as no run of theirs counts: batch_size=8." in text
    assert "batch_size=8 is not ranked with the rest" not in text


def test_one_more_reason_is_one_reason(tmp_path):
    configs = [CONFIGS[0] | {"pytorch": {"batch_size": size}} for size in range(1, 6)]

    def record(run):
        return {"environment": H200 | {"host": f"node-{run['config']['pytorch']['batch_size']}"}}

    write_runs(tmp_path, make_plan(configs, SWEPT), record)
    assert "Nor are others; further reasons: 1." in report(tmp_path).text


def test_values_of_two_machines_stand_in_one_unit_and_captions_name_no_other(tmp_path, plan):
    """The figures show one machine's experiment in mJ, the table has the other's in J."""

    def record(run):
        return {"energy_j": by_size(run, 400.0, 4e4), "environment": by_size(run, A100, H200)}

    write_runs(tmp_path, plan, record)
    text = report(tmp_path).text
    assert "batch_size=1 used 0.200 J" in text
    assert "batch_size=8 used 20.0 J" in text
    assert "J" not in "".join(captions((tmp_path / "report.html").read_text()))


def test_the_method_says_that_energy_is_gross_and_in_what_order_runs_were(tmp_path, plan):
    write_complete_study(tmp_path, plan | {"execution": {"cycle_order": "shuffled"}})
    text = report(tmp_path).text
    assert "warm-up are outside the window, and no idle draw is taken off." in text
    assert "Order of runs shuffled" in text


def test_the_first_lines_name_the_version_of_each_of_three_engines(tmp_path):
    engines = {"pytorch": "torch", "vllm": "vllm", "sglang": "sglang"}
    configs = [{"model": "tiny-llama", "backend": name} for name in engines]

    def record(run):
        versions = {"versions": {engines[run["backend"]]: "1.2"}}
        return {"environment": {"host": "node-1", "engine": versions}}

    write_runs(tmp_path, make_plan(configs, ["backend"]), record)
    text = report(tmp_path).text
    assert "Engine pytorch; torch 1.2; vllm 1.2; sglang 1.2 " in text
