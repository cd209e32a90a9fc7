"""One experiment: every setting that defines a cell of the grid, with its bounds and meaning."""

from collections.abc import Iterator
from functools import cache, cached_property
from typing import Any, Literal

from pydantic import Field

from llenergymeasure import ids
from llenergymeasure.config.backends.openai import RUN_PLACEHOLDERS, OpenAIConfig
from llenergymeasure.config.backends.pytorch import PyTorchConfig
from llenergymeasure.config.backends.sglang import SGLangConfig
from llenergymeasure.config.backends.tensorrt import TensorRTConfig
from llenergymeasure.config.backends.vllm import VLLMConfig
from llenergymeasure.config.decoder import DecoderConfig
from llenergymeasure.config.dotted import value_at
from llenergymeasure.config.measurement import (
    BaselineConfig,
    EnergyConfig,
    GpuConfig,
    Prompts,
    WarmupConfig,
    WindowConfig,
)
from llenergymeasure.config.section import PathText, Section, Seed, Text, rejection, secret_fault
from llenergymeasure.config.servers import is_listener, is_option
from llenergymeasure.config.serving import ONE_USER, ServingConfig, SloConfig, Tokens
from llenergymeasure.redact import secret_argument
from llenergymeasure.units import BACKENDS, BackendName

Precision = Literal["fp32", "fp16", "bf16"]
DatasetOrder = Literal["interleaved", "grouped", "shuffled", "given", "length"]
Weights = Literal["pretrained", "random"]
ProtocolName = Literal["auto", "quick", "standard", "publication"]

SYNTHETIC = "synthetic"
TINY_LLAMA = "tiny-llama"
OWN_TEMPLATE, NO_TEMPLATE = "auto", "none"


class SyntheticDataset(Section):
    """Prompts of a fixed length, made from a seed, so that no download is needed."""

    n: Prompts | None = Field(default=None, description="Prompts to make; default: the study's n.")
    input_len: Tokens = Field(default=512, description="Tokens in each prompt.")
    output_len: Tokens = Field(default=128, description="Tokens to generate for each prompt.")
    seed: Seed = Field(default=42, description="Seed the prompts come from.")
    shared_prefix_len: Tokens | None = Field(
        default=None,
        description="Tokens that all prompts begin with, of their input_len: what engines that "
        "keep prefixes compute once.",
        examples=[512],
    )

    def _contradictions(self) -> Iterator[str]:
        if self.shared_prefix_len is not None and self.shared_prefix_len >= self.input_len:
            yield (
                f"shared_prefix_len is {self.shared_prefix_len}, and must be less than the "
                f"input_len of {self.input_len}"
            )


_TOKENIZER_ARGUMENTS = frozenset(
    {
        *("messages", "conversation", "chat_template", "add_generation_prompt", "tokenize"),
        *("continue_final_message", "padding", "truncation", "max_length", "tokenizer_kwargs"),
        *("return_tensors", "return_dict", "return_assistant_tokens_mask"),
        "sanitize_control_tokens",
    }
)
"""What transformers takes for itself, or gives itself, where a template's variables are given;
``tools`` and ``documents`` are passed on to the template."""


class ChatConfig(Section):
    """Texts of the data set as a user's messages, through a chat template."""

    template: PathText = Field(
        default=OWN_TEMPLATE,
        description="Chat template: auto, the model's own; none, texts are sent bare; else a file "
        "in Jinja.",
        examples=["auto", "none", "template.jinja"],
    )
    system: Text | None = Field(
        default=None,
        description="A system message, put before each chat that has none of its own.",
        examples=["You are a helpful assistant."],
    )
    arguments: dict[str, Any] | None = Field(
        default=None,
        description="Variables of the template.",
        examples=[{"enable_thinking": False}],
    )

    def _contradictions(self) -> Iterator[str]:
        if not self.templated and (self.system is not None or self.arguments):
            yield "template: none has no place for system and arguments; remove them, or template"
        names = ", ".join(sorted(_TOKENIZER_ARGUMENTS.intersection(self.arguments or ())))
        if names:
            yield f"arguments are variables of the template; remove the tokenizer's own: {names}"

    @property
    def templated(self) -> bool:
        """Whether texts go through a template."""
        return self.template != NO_TEMPLATE


class LoraConfig(Section):
    """A LoRA adapter put on the model: its id on the hub or its local folder, not both."""

    adapter_id: Text | None = Field(default=None, description="Adapter on the hub.")
    adapter_path: Text | None = Field(default=None, description="Local folder of the adapter.")
    merge_weights: bool = Field(
        default=False, description="Merge the adapter into the model's weights when loading."
    )

    def _contradictions(self) -> Iterator[str]:
        if (self.adapter_id is None) == (self.adapter_path is None):
            yield "give adapter_id or adapter_path, and only one of them"


class ExperimentConfig(Section):
    """One fully resolved configuration, a cell of the grid."""

    model: PathText = Field(
        description="Model id on the hub, a local folder, or a built-in name; tiny-llama is made "
        "locally with random weights and needs no download.",
        examples=["tiny-llama", "meta-llama/Llama-3.1-8B"],
    )
    backend: BackendName = Field(default="pytorch", description="Engine that runs the model.")
    weights: Weights = Field(
        default="pretrained",
        description="random loads the architecture alone with random weights, which cost the same "
        "energy per token and need no download. tiny-llama always has random weights.",
    )
    n: Prompts = Field(default=100, description="Prompts in the workload.")
    dataset: str | SyntheticDataset = Field(
        default=SYNTHETIC,
        description="synthetic, a data set's id (aienergyscore), a local file, or the synthetic "
        "mapping {n, input_len, output_len, seed}. Plain synthetic takes its lengths from "
        "max_input_tokens and max_output_tokens.",
        examples=["synthetic", "aienergyscore", {"n": 32, "input_len": 256, "output_len": 64}],
    )
    dataset_order: DatasetOrder = Field(
        default="interleaved",
        description="Order of the prompts: interleaved takes sources in turn, grouped source by "
        "source, shuffled by random_seed, given as in the file, length by rising length.",
    )
    precision: Precision = Field(
        default="bf16",
        description="Data type of weights and activations; fewer bits are set by the engine, as "
        "pytorch.load_in_8bit or vllm.engine.quantization.",
    )
    random_seed: Seed = Field(default=42, description="Seed of sampling and of the prompts' order.")
    max_input_tokens: Tokens = Field(
        default=512, description="Longer prompts are cut to this length."
    )
    max_output_tokens: Tokens = Field(
        default=128,
        description="Tokens generated for each prompt; a limit where answers end by themselves.",
    )
    answer_length: Literal["fixed", "natural"] | None = Field(
        default=None,
        description="fixed, the default, writes exactly the tokens asked for, so that engines "
        "compare. natural lets answers end by themselves, at max_output_tokens at the latest; "
        "where tokens are sampled, each cycle draws answers of its own.",
    )
    chat: ChatConfig | None = Field(
        default=None,
        description="Ask as a chat model's users do; default: texts are sent bare, and rows with "
        "messages through the model's own template.",
    )
    protocol: ProtocolName = Field(
        default="auto",
        description="How carefully to measure: quick (windows of 1 s, no idle phases), standard "
        "(20 s, idle before and after), publication (60 s, at least 5 cycles). "
        "auto is standard where a sensor measures and quick where energy is only estimated. "
        "Any single setting given wins over it.",
    )
    decoder: DecoderConfig = Field(
        default_factory=cache(DecoderConfig), description="Token choice."
    )
    warmup: WarmupConfig = Field(default_factory=cache(WarmupConfig), description="Warm-up.")
    baseline: BaselineConfig = Field(
        default_factory=cache(BaselineConfig), description="Idle phases."
    )
    window: WindowConfig = Field(
        default_factory=cache(WindowConfig), description="Measured window."
    )
    energy: EnergyConfig = Field(default_factory=cache(EnergyConfig), description="Energy source.")
    lora: LoraConfig | None = Field(default=None, description="LoRA adapter.")
    serving: ServingConfig | None = Field(
        default=None,
        description="Run the engine as a server under traffic; default: batches in its process.",
        examples=[{"arrivals": "poisson", "rate_per_s": 4}],
    )
    slo: SloConfig | None = Field(
        default=None,
        description="What an answer must keep to be good, for goodput; with serving alone.",
        examples=[{"ttft_ms": 500, "tpot_ms": 50}],
    )
    gpu: GpuConfig | None = Field(
        default=None, description="GPUs to use, their power limit and clock; default: as they are."
    )
    pytorch: PyTorchConfig | None = Field(default=None, description="Settings of pytorch alone.")
    vllm: VLLMConfig | None = Field(default=None, description="Settings of vllm alone.")
    sglang: SGLangConfig | None = Field(default=None, description="Settings of sglang alone.")
    tensorrt: TensorRTConfig | None = Field(default=None, description="Settings of tensorrt alone.")
    openai: OpenAIConfig | None = Field(
        default=None, description="Settings of openai: any server that speaks its interface."
    )
    passthrough_kwargs: dict[str, Any] | None = Field(
        default=None,
        description="Arguments handed to the engine as they are; for what has no name here.",
    )
    output_dir: PathText | None = Field(
        default=None,
        description="Folder the study's results go under; not part of what is measured.",
    )

    def _contradictions(self) -> Iterator[str]:
        yield from self._section_contradictions()
        yield from self._command_contradictions()
        yield from self._answer_contradictions()
        yield from self._chat_contradictions()
        yield from self._argument_contradictions()

    def _section_contradictions(self) -> Iterator[str]:
        for name in BACKENDS:
            if name != self.backend and getattr(self, name) is not None:
                yield (
                    f"the section {name} belongs to backend {name}, but backend is {self.backend}; "
                    f"remove {name} or set backend: {name}"
                )
        if self.slo is not None and self.serving is None and self.backend != "openai":
            yield "slo judges answers under traffic; add serving, or remove slo"
        if self.backend == "openai" and self.openai is None:
            yield (
                "backend openai needs openai.base_url, the address of the running server, or "
                "openai.command, which starts one"
            )

    def _command_contradictions(self) -> Iterator[str]:
        for name, value in self.command_settings().items():
            if name not in RUN_PLACEHOLDERS and value is None:
                yield (
                    f"openai.command has {{{name}}}, which is neither in openai.values nor a "
                    "setting that has a value"
                )

    def _answer_contradictions(self) -> Iterator[str]:
        if self.answer_length == "fixed" and self.decoder.min_new_tokens is not None:
            yield (
                "with decoder.min_new_tokens answers may end by themselves; remove it, or "
                "answer_length: fixed"
            )
        if self.answer_length == "natural" and self.weights == "random":
            yield (
                "random weights end their answers by chance; use weights: pretrained, or remove "
                "answer_length: natural"
            )

    def _chat_contradictions(self) -> Iterator[str]:
        chat, serving = self.chat, self.serving or ONE_USER
        if chat is None:
            return
        if self.synthetic() is not None:
            yield "chat is about texts, and synthetic prompts are none; name a dataset"
        if serving.turns is not None:
            yield "serving.turns joins token ids, no chat template does; remove it"
        if serving.endpoint == "chat" and chat.template != OWN_TEMPLATE:
            yield (
                "at serving.endpoint: chat the server has its own template; use template: auto, or "
                "endpoint: completions"
            )

    def _argument_contradictions(self) -> Iterator[str]:
        section, passthrough = getattr(self, self.backend), self.passthrough_kwargs or {}
        reserved = sorted(passthrough.keys() & type(self).model_fields.keys())
        if reserved:
            yield f"passthrough_kwargs may not set {', '.join(reserved)}; set it at the top level"
        secret = secret_argument(passthrough, "passthrough_kwargs")
        if section is not None and section.secret is not None:
            secret = f"{self.backend}.{section.secret}"
        if secret is not None:
            raise rejection([secret_fault(secret)])
        engine = getattr(section, "engine", None)
        arguments = {} if engine is None else engine.plain
        if self.backend == "pytorch":
            passthrough = {}
        listeners = [name for name in passthrough if is_listener(name)]
        arguments = {**arguments, **passthrough}
        listeners += [name for name, value in arguments.items() if is_option(value)]
        if listeners:
            yield (
                f"{listeners[0]} is not for a study: the engine's server listens on this machine "
                "alone, at a free port"
            )

    @property
    def served(self) -> bool:
        """Whether the engine is a server under traffic, not batches in the run's own process."""
        return self.serving is not None or self.backend == "openai"

    @cached_property
    def external_server(self) -> bool:
        """Whether a server that the user has started does the work."""
        return self.backend == "openai" and (self.openai is None or self.openai.command is None)

    def command_values(self) -> dict[str, Any]:
        """Return the values of the placeholders in ``openai.command``, without those of a run."""
        values = {} if self.openai is None else self.openai.values or {}
        return {**self.plain, **values}

    def command_settings(self) -> dict[str, Any]:
        """Return the settings that ``openai.command`` contains, by placeholder."""
        values, names = self.command_values(), self.openai.placeholders() if self.openai else ()
        return {name: value_at(values, name) for name in names}

    @property
    def fewest_tokens(self) -> int | None:
        """The fewest tokens of an answer that may end by itself; null if none may."""
        min_tokens = self.decoder.min_new_tokens
        return min_tokens or 1 if self.answer_length == "natural" else min_tokens

    def with_cycle_seed(self, cycle: int) -> "ExperimentConfig":
        """Return what is drawn in a cycle by its own seed: traffic, and answers that are natural.

        It is the same for all experiments of a cycle, and one that every engine takes.
        """
        if self.serving is None and (self.answer_length != "natural" or self.decoder.greedy):
            return self
        digest = ids.digest({"random_seed": self.random_seed, "cycle": cycle})
        return self.model_copy(update={"random_seed": int(digest, 16) % 2**31})

    def synthetic(self) -> SyntheticDataset | None:
        """Return the synthetic data set with every value filled in; null for any other."""
        if isinstance(self.dataset, SyntheticDataset):
            return self.dataset.model_copy(update={"n": self.dataset.n or self.n})
        if self.dataset != SYNTHETIC:
            return None
        return SyntheticDataset(
            n=self.n,
            input_len=self.max_input_tokens,
            output_len=self.max_output_tokens,
            seed=self.random_seed,
        )
