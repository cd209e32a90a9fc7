"""How long prompts and answers are: fixed, uniform, lognormal, or as in a trace."""

import math

from llenergymeasure.config.serving import LengthConfig
from llenergymeasure.workload.arrivals_trace import Trace
from llenergymeasure.workload.draws import Draws


def draw_length(config: LengthConfig, draws: Draws) -> int:
    """Return one length in tokens, within the limits of ``config``.

    A lognormal of mean m and coefficient of variation c has sigma² = ln(1 + c²) and
    mu = ln m - sigma² / 2.

    Raises:
        ValueError: the distribution is ``data``, which :func:`draw_lengths` draws.
    """
    if config.distribution == "fixed":
        assert config.tokens is not None
        return config.tokens
    if config.distribution == "uniform":
        assert config.min_tokens is not None
        assert config.max_tokens is not None
        span = config.max_tokens - config.min_tokens + 1
        return config.min_tokens + int(draws.uniform(1)[0] * span)
    if config.distribution == "lognormal":
        assert config.mean_tokens is not None
        assert config.cv is not None
        variance = math.log1p(config.cv**2)
        location = math.log(config.mean_tokens) - variance / 2
        return _within(round(math.exp(location + math.sqrt(variance) * draws.normal())), config)
    raise ValueError("lengths from data are drawn from a trace")


def draw_lengths(
    input_tokens: LengthConfig, output_tokens: LengthConfig, draws: Draws, trace: Trace | None
) -> tuple[int, int]:
    """Return the lengths of one prompt and its answer.

    Those from data come from one row of the trace, so that long prompts keep their answers.
    """
    row = 0 if trace is None else int(draws.uniform(1)[0] * len(trace))
    lengths = []
    for place, config in enumerate((input_tokens, output_tokens)):
        if config.distribution == "data":
            assert trace is not None
            lengths.append(_within(trace.lengths(row)[place], config))
        else:
            lengths.append(draw_length(config, draws))
    return lengths[0], lengths[1]


def _within(tokens: int, config: LengthConfig) -> int:
    tokens = max(tokens, config.min_tokens or 1)
    return tokens if config.max_tokens is None else min(tokens, config.max_tokens)
