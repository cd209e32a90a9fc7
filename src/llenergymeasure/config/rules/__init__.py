"""Rules across settings that engines check only after loading: found before anything runs."""

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.rules import pytorch, sglang, tensorrt, vllm
from llenergymeasure.config.rules.common import NATURAL
from llenergymeasure.config.rules.rule import Breach, Capability, Facts, Rule, Shape

RULES: dict[str, tuple[Rule, ...]] = {
    "pytorch": pytorch.RULES,
    "vllm": (*vllm.RULES, NATURAL),
    "sglang": (*sglang.RULES, NATURAL),
    "tensorrt": (*tensorrt.RULES, NATURAL),
    "openai": (NATURAL,),
}


def breaches(
    config: ExperimentConfig, shape: Shape | None = None, capability: Capability | None = None
) -> list[Breach]:
    """Return which settings of an experiment do not go together.

    Args:
        config: the experiment.
        shape: the model's, if it is known.
        capability: the least compute capability among the GPUs, if it is known.
    """
    section = getattr(config, config.backend)
    if section is None and config.backend == "pytorch":
        return []  # All of its rules are about its own section.
    engine = getattr(section, "engine", None)
    sampling = getattr(section, "sampling", None)
    if config.backend == "vllm" and engine is not None:
        arguments = engine.arguments()
    else:
        arguments = {} if engine is None else engine.given()
    facts = Facts(
        config=config,
        engine=arguments,
        sampling={} if sampling is None else sampling.given(),
        shape=shape,
        capability=capability,
    )
    return [breach for rule in RULES.get(config.backend, ()) for breach in rule.breaches(facts)]


__all__ = ["RULES", "Breach", "Capability", "Facts", "Rule", "Shape", "breaches"]
