"""Deliberate faults in what a reader is told, and the tests that must notice each of them.

One fault is one changed place. ``run.py`` puts them in, one at a time; whoever changes a line that
stands here changes the fault with it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        file: below ``src/llenergymeasure``.
        old: text that stands there once.
        new: what takes its place.
        told: what a reader would be told wrongly.
        tests: what pytest runs to notice it, below ``tests``.
    """

    file: str
    old: str
    new: str
    told: str
    tests: tuple[str, ...]


_SUMMARY = "analysis/test_summary.py"
_STATISTICS = "analysis/test_summary_statistics.py"
_CLAIMS = "report/test_claims.py"
_SENTENCE = f"{_CLAIMS}::test_a_claim_stands_where_it_is_true_and_nowhere_else"
_LEFT_OUT = f"{_CLAIMS}::test_runs_of_another_machine_are_counted_named_and_drawn_as_left_out"
_PRECISION = (
    f"{_CLAIMS}::test_a_precision_target_is_described_with_its_method_and_whether_it_was_met"
)
_PAIRS = "analysis/test_comparison.py"
_COMPARABLE = "analysis/test_comparable.py"

MUTANTS = (
    # Which runs are in a mean, and what may be compared.
    Mutant(
        "analysis/selection.py",
        'return row["status"] == "completed" and not DISQUALIFYING & set(row["validity"] or ())',
        'return row["status"] == "completed"',
        "a mean that holds disqualified runs",
        (f"{_SUMMARY}::test_disqualified_runs_are_counted_and_left_out",),
    ),
    Mutant(
        "analysis/selection.py",
        '{"measured": 0, "estimated": 1}',
        '{"measured": 1, "estimated": 0}',
        "a mean of guesses where there are measurements",
        (f"{_SUMMARY}::test_measured_and_estimated_never_meet_in_a_mean",),
    ),
    Mutant(
        "analysis/selection.py",
        'MACHINE_COLUMNS = ("gpu_name", "driver_version",',
        'MACHINE_COLUMNS = ("driver_version",',
        "a mean over two models of GPU",
        (_LEFT_OUT,),
    ),
    Mutant(
        "analysis/selection.py",
        '"n_other_machine": len(other_machine_runs),',
        '"n_other_machine": 0,',
        "no run left out, although some were made on another machine",
        (_LEFT_OUT,),
    ),
    Mutant(
        "analysis/comparable.py",
        "if a.meter != b.meter and None not in (a.meter[0], b.meter[0]):",
        "if False:",
        "GPU joules ranked against CPU joules",
        (_COMPARABLE,),
    ),
    Mutant(
        "analysis/comparable.py",
        'if name not in ("host", "gpu_uuid") or name in a.fixed_columns | b.fixed_columns',
        'if name not in ("host", "gpu_uuid")',
        "a setting's effect that is another node's",
        (_COMPARABLE,),
    ),
    Mutant(
        "analysis/comparable.py",
        "if a.study_limit_w != b.study_limit_w:",
        "if True:",
        "a setting's effect that is a lower power limit's",
        (_COMPARABLE,),
    ),
    Mutant(
        "analysis/comparable.py",
        '_tokens_per_request(matching, "input_tokens"),',
        "frozenset(),",
        "a faster engine that read fewer tokens",
        (_COMPARABLE,),
    ),
    Mutant(
        "analysis/comparable.py",
        "work_by_backend = self._work.get(facts.planned_work, {})",
        "work_by_backend: dict[str, dict[object, _Facts]] = {}",
        "engines in one ranking that did other work by the same plan",
        (_COMPARABLE,),
    ),
    # Pairs.
    Mutant(
        "analysis/statistics.py",
        "factors = len(tested) - np.arange(len(tested))",
        "factors = np.ones(len(tested))",
        "differences by chance among many pairs",
        (_PAIRS,),
    ),
    Mutant(
        "analysis/pairwise_comparison.py",
        "t_isf(0.025, freedom[scatters])",
        "t_isf(0.05, freedom[scatters])",
        "a 90 % interval called 95 %",
        (_PAIRS,),
    ),
    Mutant(
        "analysis/pairwise_comparison.py",
        "paired = blocked & (shared >= MIN_SHARED_CYCLES)",
        "paired = shared >= MIN_SHARED_CYCLES",
        "a drift taken for a difference, as if the runs had been in blocks",
        (_PAIRS,),
    ),
    Mutant(
        "analysis/pairwise_comparison.py",
        "ratio=_exp(center[pair]),",
        "ratio=_exp(-center[pair]),",
        "more where it is less",
        (_PAIRS,),
    ),
    Mutant(
        "analysis/pairwise_comparison.py",
        "return max(int(_CYCLE_COUNTS[deciding[0]]), runs + 1) if len(deciding) else None",
        "return runs + 1",
        "that one more cycle would decide it",
        (_PAIRS,),
    ),
    Mutant(
        "analysis/pairwise_comparison.py",
        "widening(*columns) ** 2 for columns in zip(",
        "1.0 for columns in zip(",
        "a difference between runs that follow each other, made one after the other",
        (_PAIRS,),
    ),
    Mutant(
        "report/relations.py",
        "abs(ratio - 1) >= shared_u95_rel",
        "ratio > 0",
        "a difference less than what the sensor leaves open, without a word of that",
        (f"{_SENTENCE}[less than what the sensor leaves open-undersampled]",),
    ),
    # Settings, trends, fronts.
    Mutant(
        "analysis/levels.py",
        "if cycles >= MIN_CYCLES and present.all():",
        "if False:",
        "an interval too narrow for the noisier of the experiments",
        ("analysis/test_levels.py",),
    ),
    Mutant(
        "analysis/levels.py",
        "explained = cycle_errors**2 * cycle_freedom",
        "explained = cycle_errors * 0.0",
        "an effect of one noisy experiment, seen in four cycles",
        ("analysis/test_levels.py",),
    ),
    Mutant(
        "analysis/levels.py",
        "replace(row, p_holm=p_holm)",
        "replace(row, p_holm=row.p)",
        "effects by chance among many levels",
        ("analysis/test_levels.py",),
    ),
    Mutant(
        "analysis/levels.py",
        "if not is_estimable[column]:",
        "if False:",
        "an effect of one setting that is another's",
        ("analysis/test_levels.py",),
    ),
    Mutant(
        "analysis/levels.py",
        "levels = [level for level in dict.fromkeys(texts) if level in with_data]",
        "levels = list(dict.fromkeys(texts))",
        "an effect of a value without data",
        ("analysis/test_levels.py",),
    ),
    Mutant(
        "analysis/blocks.py",
        "by_cycle = bool((present.sum(axis=1) > 1).any())",
        "by_cycle = False",
        "a drift where cycles differ by chance",
        ("analysis/test_drift.py",),
    ),
    Mutant(
        "analysis/pareto.py",
        'sign = 1.0 if direction == "min" else -1.0',
        "sign = 1.0",
        "the slowest experiment as best for throughput",
        ("analysis/test_pareto.py",),
    ),
    Mutant(
        "analysis/pareto.py",
        "return _rounded(means)",
        "return means",
        "the worst of equal experiments on the front",
        ("analysis/test_pareto.py",),
    ),
    Mutant(
        "analysis/pareto.py",
        "MIN_CYCLES = 5",
        "MIN_CYCLES = 2",
        "100 % sure after two cycles",
        ("analysis/test_pareto.py",),
    ),
    # Means and their intervals.
    Mutant(
        "analysis/statistics.py",
        "/ math.sqrt(n) * correlation.widening",
        "/ math.sqrt(n)",
        "an interval too narrow where cycles follow each other",
        ("analysis/test_statistics.py",),
    ),
    Mutant(
        "analysis/statistics.py",
        "low, high = log_interval_around(mean, half_width)",
        "low, high = mean * (1 - half_width), mean * (1 + half_width)",
        "an energy below zero",
        ("analysis/test_statistics.py",),
    ),
    Mutant(
        "analysis/stopping_rule.py",
        "t_quantile(len(pilot) - 1)",
        "t_quantile(len(values) - 1)",
        "a precision that the pilot cannot promise",
        ("analysis/test_stopping.py",),
    ),
    Mutant(
        "analysis/summary.py",
        'parts = (band, row["energy_shared_u95_rel"] or 0.0)',
        "parts = (band,)",
        "that repeats shrink what the sensor never sees",
        (f"{_SUMMARY}::test_what_repeats_share_goes_into_the_total_interval_undiminished",),
    ),
    Mutant(
        "analysis/summary.py",
        'row["precision_reached"] = ends[1] <= row[f"{ENERGY}_mean"] * (1 + target) * (1 + 1e-9)',
        'row["precision_reached"] = True',
        "a precision that was not reached",
        (_STATISTICS,),
    ),
    Mutant(
        "analysis/summary.py",
        "return values if all(value is not None and math.isfinite(value) for value in values)"
        " else []",
        "return [value for value in values if value is not None and math.isfinite(value)]",
        "a mean over fewer runs than n says",
        (_SUMMARY,),
    ),
    Mutant(
        "analysis/pooling.py",
        "if len(studies) > 1:",
        "if False:",
        "an interval over cycles of one day for what differs from day to day",
        ("analysis/test_pooling.py::test_over_several_studies_the_studies_are_the_repeats",),
    ),
    Mutant(
        "analysis/pooling.py",
        "if lowest > 0:",
        "if False:",
        "a pooled energy below zero",
        (
            "analysis/test_pooling.py::test_over_incomplete_cycles_no_interval_goes_where_no_value_can",
        ),
    ),
    Mutant(
        "analysis/pooling.py",
        "aspects += [name for name in meter_columns if name not in by]",
        "pass",
        "a mean of measurements and guesses",
        ("analysis/test_pooling.py::test_measured_and_estimated_energy_have_no_common_mean",),
    ),
    Mutant(
        "analysis/load_curve.py",
        'if not in_means(run) or run["over_saturated"]:',
        "if not in_means(run):",
        "an energy per request from a server that no longer keeps up",
        ("analysis/test_load_curve.py",),
    ),
    Mutant(
        "analysis/pooling.py",
        "if by_cycle > total:",
        "if False:",
        "an interval of independent runs for runs of the same cycles, because one is missing",
        ("analysis/test_pooling.py::test_one_run_that_is_missing_makes_no_interval_too_narrow",),
    ),
    Mutant(
        "analysis/load_curve.py",
        "_, _, chi_squared = _fit(design, powers, variances + scatter)",
        "_, _, chi_squared = _fit(design, powers, variances + scatter + high)",
        "a line as sure as the meter, through runs that scatter",
        ("analysis/test_load_curve.py",),
    ),
    Mutant(
        "analysis/load_curve.py",
        "max(float(half_widths[0]), cycles_half_w)",
        "float(half_widths[0])",
        "a power at no load as sure as if no cycle were off as a whole",
        ("analysis/test_load_curve.py",),
    ),
    Mutant(
        "analysis/load_curve.py",
        "slope_half_j=math.hypot(half_widths[1], shared_j)",
        "slope_half_j=float(half_widths[1])",
        "an energy of one request more that more runs make surer than the sensor is",
        ("analysis/test_load_curve.py",),
    ),
    Mutant(
        "analysis/load_curve.py",
        "bent=_is_bent(loads, powers, variances, points)",
        "bent=False",
        "a power at no load by a line through what is none",
        ("analysis/test_load_curve.py",),
    ),
    Mutant(
        "analysis/knee.py",
        "and was_sustained and not codes",
        "and was_sustained",
        "a capacity at which half of the requests failed",
        ("analysis/test_load_curve.py",),
    ),
    Mutant(
        "analysis/knee.py",
        'was_sustained = not run["over_saturated"] and run["slo_attained"] is not False',
        'was_sustained = not run["over_saturated"]',
        "a capacity at which the promised latencies were missed",
        ("analysis/test_load_curve.py",),
    ),
    Mutant(
        "analysis/merge.py",
        "and abs(celsius - median_celsius[host, cards]) > MAX_START_OFFSET_CELSIUS",
        "and celsius - median_celsius[host, cards] > MAX_START_OFFSET_CELSIUS",
        "nothing of a run that began cold",
        ("analysis/test_temperatures.py",),
    ),
    Mutant(
        "analysis/merge_cache.py",
        'stamp.digest if stamp.is_settled else ""',
        "stamp.digest",
        "a figure of a file that was changed since",
        ("analysis/test_merge_cache.py::test_a_file_that_may_still_change_unseen_is_not_kept",),
    ),
    Mutant(
        "analysis/recompute.py",
        "RELATIVE_TOLERANCE = 1e-9",
        "RELATIVE_TOLERANCE = 1e-1",
        "that a figure is right which is 10 % off",
        ("analysis/test_difference.py",),
    ),
    # What the page and the terminal say.
    Mutant(
        "report/relations.py",
        'return row["p_holm"] is not None and row["p_holm"] < SIGNIFICANCE_LEVEL',
        'return row["p"] is not None and row["p"] < SIGNIFICANCE_LEVEL',
        "that pairs differ which an uncorrected p value alone parts",
        (f"{_CLAIMS}::test_no_difference_is_told_without_its_verdict",),
    ),
    Mutant(
        "report/relations.py",
        'return bool((row["ratio"] < 1) == (row["experiment_b"] == first["experiment"]))',
        "return True",
        "less energy where the pairs show more",
        (f"{_CLAIMS}::test_no_difference_is_told_without_its_verdict",),
    ),
    Mutant(
        "report/relations.py",
        "ratio, low, high = 1 / ratio, 1 / high, 1 / low",
        "ratio, low, high = 1 / ratio, low, high",
        "an interval that does not hold its own ratio",
        (f"{_CLAIMS}::test_a_difference_is_told_with_its_pair_and_what_else_differs",),
    ),
    Mutant(
        "report/relations.py",
        "widening = t_isf(0.025 / max(n_tested, 1), freedom) / t_isf(0.025, freedom)",
        "widening = 1.0",
        "a pair chosen after looking with the interval of one named before",
        (f"{_CLAIMS}::test_the_interval_of_a_chosen_pair_holds_for_all_pairs_and_no_less",),
    ),
    Mutant(
        "report/relations.py",
        "return f\"unpaired, {row['n_a']} and {row['n_b']} runs\"",
        "return f\"paired over {row['n_a']} cycles\"",
        "that runs were paired by cycle which were hours apart",
        (f"{_SENTENCE}[unpaired, 5 and 5 runs-unpaired null]",),
    ),
    Mutant(
        "report/findings.py",
        "if pairs.incomparable_reason(best, row) is None]",
        "]",
        "an engine as most wasteful that did other work",
        (f"{_SENTENCE}[Least energy:-other work]",),
    ),
    Mutant(
        "report/findings.py",
        "    sentences += not_ranked_notes(row for group in groups[1:] for row in group)\n",
        "",
        "nothing of experiments that no ranking holds",
        ("report/test_page.py::test_estimated_is_not_ranked_against_measured",),
    ),
    Mutant(
        "report/findings.py",
        "if shared >= MIN_SHARED_REL:",
        "if False:",
        "an interval over runs alone where the sensor sees a quarter of the time",
        (f"{_SENTENCE}[may move each value by up to-undersampled]",),
    ),
    Mutant(
        "report/findings.py",
        'missed = [row for row in rows_with_target if not row["precision_reached"]]',
        "missed: list[Row] = []",
        "nothing of a precision that was asked for and missed",
        (_PRECISION,),
    ),
    Mutant(
        "report/findings.py",
        "state = LEFT_OUT if not is_used else",
        "state = IN_MEANS if not is_used else",
        "a run left out of the mean drawn as part of it",
        (_LEFT_OUT,),
    ),
    Mutant(
        "report/findings.py",
        "if trend.detected:",
        "if True:",
        "a drift that the runs do not show",
        ("report/test_page.py::test_no_drift_is_claimed_that_the_runs_do_not_show",),
    ),
    Mutant(
        "report/method.py",
        'n_correlated = sum(row["cycles_correlated"] is True for row in repeated)',
        "n_correlated = 0",
        "nothing of cycles that follow each other",
        (f"{_CLAIMS}::test_cycles_that_are_alike_or_too_few_to_tell_are_said",),
    ),
    Mutant(
        "report/method.py",
        'if any(row["interval_method"] == "stein" for row in rows):',
        "if False:",
        "another interval than the one that is shown",
        (_PRECISION,),
    ),
    Mutant(
        "report/formatting.py",
        'reach = f"± {above}" if above == below else f"+{above} -{below}"',
        'reach = f"± {above}"',
        "the upper half of an interval as if it were both",
        ("report/test_wording.py",),
    ),
    Mutant(
        "report/formatting.py",
        "{'less' if ratio < 1 else 'more'}",
        "{'more' if ratio < 1 else 'less'}",
        "more where it is less",
        ("report/test_wording.py",),
    ),
    Mutant(
        "report/charts.py",
        "        if clipped_rows:\n",
        "        if False:\n",
        "an interval that ends at the axis although it goes on",
        ("report/test_figures.py",),
    ),
    Mutant(
        "report/charts.py",
        '"range": ["circle", "diamond", "square"]',
        '"range": ["circle", "circle", "square"]',
        "a guess drawn as a measurement, but for its colour",
        ("report/test_figures.py",),
    ),
    Mutant(
        "report/pareto_figure.py",
        '"front": row["experiment"] in front,',
        '"front": True,',
        "every experiment on the Pareto front",
        ("report/test_fronts.py",),
    ),
    Mutant(
        "report/sweep.py",
        "    return drawn_rows, [f",
        "    return drawn_rows, [] and [f",
        "a figure of some experiments as if of all",
        ("report/test_figures.py",),
    ),
    Mutant(
        "report/serving.py",
        "if not curve.is_significant:",
        "if False:",
        "an energy of each request that the runs do not show",
        ("report/test_serving.py",),
    ),
    Mutant(
        "report/serving.py",
        'if in_means(run) and run["power_mean_w"] is not None',
        'if run["power_mean_w"] is not None',
        "a disqualified run among the points of power against load",
        ("report/test_serving.py",),
    ),
    Mutant(
        "report/serving.py",
        "        if not curve.bent\n",
        "",
        "a straight line through power that is none",
        ("report/test_serving.py",),
    ),
    Mutant(
        "report/traces.py",
        'return min(candidates, key=lambda run: (abs(run[ENERGY_PER_TOKEN] - mean), run["cycle"]))',
        'return max(candidates, key=lambda run: (abs(run[ENERGY_PER_TOKEN] - mean), run["cycle"]))',
        "the oddest run as the one nearest to the mean",
        ("report/test_traces.py",),
    ),
    Mutant(
        "report/plain_text.py",
        'lines[0] += f", {left_out} left out of the means"',
        "pass",
        "that all completed runs are in the means",
        ("report/test_text.py::test_flags_say_which_runs_are_left_out",),
    ),
    Mutant(
        "report/relations.py",
        'return "differ" if is_significant(row) else "inconclusive"',
        'return "differ"',
        "differ where it is open",
        (f"{_SENTENCE}[verdict: differ-null]",),
    ),
    Mutant(
        "report/failed_runs.py",
        '"OutOfMemoryError": _MEMORY,',
        '"OutOfMemoryError": _PACKAGE,',
        "to install a package where memory ran out",
        ("report/test_advice.py",),
    ),
    Mutant(
        "report/export/forms.py",
        "1000 * energy_j / J_PER_WH",
        "energy_j / J_PER_WH",
        "a thousandth of the energy",
        ("report/test_export.py::test_watt_hours_per_thousand_queries",),
    ),
    # What stands in the tables and what is believed of a run.
    Mutant(
        "results/columns.py",
        '"energy_net_j": "energy.net_j",',
        '"energy_net_j": "energy.gross_j",',
        "energy with the idle part as energy without it",
        ("results/test_table.py",),
    ),
    Mutant(
        "results/table.py",
        "return None if isinstance(value, float) and not math.isfinite(value) else value",
        "return value",
        "not-a-number as a value",
        ("results/test_table.py",),
    ),
    Mutant(
        "results/table.py",
        '"host": job_record.get("node") or host,',
        '"host": host,',
        "two names of one machine, which are then not compared",
        ("results/test_table.py",),
    ),
    Mutant(
        "results/complete.py",
        "    if digest != recorded_digest:\n",
        "    if False:\n",
        "figures of a file that is not the one that was written",
        ("analysis/test_merge.py::test_record_of_another_run_is_not_taken",),
    ),
    Mutant(
        "results/complete.py",
        "    is_changed = recorded_digest not in (None, digest)",
        "    is_changed = False",
        "a figure of a record that was changed after it was written",
        ("analysis/test_merge_cache.py",),
    ),
    Mutant(
        "results/outcome.py",
        "if outcome.pid_start_ticks not in (None, ticks):",
        "if False:",
        "that a run is at work whose process number is another's now",
        ("results/test_outcome.py",),
    ),
)
