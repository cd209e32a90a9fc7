"""The benchmark of what studies claim, kept short: it ends well, and not where a claim is loose."""

import sys
from dataclasses import replace

import numpy as np

from support.studies import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import claims


def test_few_simulated_studies_claim_too_little_to_fail(capsys, monkeypatch):
    monkeypatch.setattr(claims, "SCENARIOS", claims.SCENARIOS[:2])
    assert claims.main(["--quick"]) == 0
    printed = capsys.readouterr().out
    assert "noise alone" in printed
    assert "mean, log-normal, CV 25 %" in printed


def test_a_study_whose_every_verdict_is_uncorrected_fails(capsys, monkeypatch):
    monkeypatch.setattr(claims, "with_holm", lambda pairs: [_uncorrected(each) for each in pairs])
    kept = claims.print_claims(claims.SCENARIOS[0], 8, 5, 60, np.random.default_rng(1))
    assert not kept
    assert "8 x 5" in capsys.readouterr().out


def _uncorrected(pair):
    return replace(pair, p_holm=pair.p)
