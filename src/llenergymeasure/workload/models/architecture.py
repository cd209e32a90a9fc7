"""The shape of a decoder-only transformer: data from which cost and memory follow."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ModelType = str
"""Hugging Face's name of an architecture family, as in ``config.json``."""

SUPPORTED_TYPES: tuple[ModelType, ...] = ("llama", "mistral", "mixtral", "qwen2", "qwen3", "gpt2")


@dataclass(frozen=True)
class Architecture:
    """A decoder-only transformer's dimensions.

    Attributes:
        name: the name people know it by.
        model_type: one of :data:`SUPPORTED_TYPES`.
        hidden_size: width of the residual stream.
        layers: number of transformer blocks.
        heads: query heads a block.
        kv_heads: key and value heads a block (fewer than ``heads`` in grouped-query attention).
        head_dim: width of one head.
        intermediate_size: width of the feed-forward layer, of one expert if there are several.
        vocab_size: rows of the embedding.
        max_positions: longest sequence it was made for, in tokens.
        norm_eps: epsilon of its norms.
        tied: whether the output head shares the embedding's weights.
        rope_theta: base of the rotary embedding; None where positions are learned (GPT-2).
        rope_scaling: Hugging Face's ``rope_scaling`` mapping.
        sliding_window: keys a token can see, if limited.
        experts: experts a layer; 0 for a dense model.
        experts_per_token: experts that work on each token.
        text_tokens: first and one past the last id of a stretch of ordinary tokens, free of
            special ones.
        bos_token_id: begin-of-sequence id.
        eos_token_id: end-of-sequence id.
    """

    name: str
    model_type: ModelType
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_positions: int
    norm_eps: float = 1e-5
    tied: bool = False
    rope_theta: float | None = 10_000.0
    rope_scaling: Mapping[str, Any] | None = None
    sliding_window: int | None = None
    experts: int = 0
    experts_per_token: int = 0
    text_tokens: tuple[int, int] | None = None
    bos_token_id: int | None = None
    eos_token_id: int | None = None

    @property
    def gated_mlp(self) -> bool:
        """Whether the feed-forward layer has a gate (three matrices instead of two)."""
        return self.model_type != "gpt2"

    def attention_weights(self) -> int:
        """Return the weights of one layer's four attention matrices, without biases."""
        query_and_output = 2 * self.hidden_size * self.heads * self.head_dim
        key_and_value = 2 * self.hidden_size * self.kv_heads * self.head_dim
        return query_and_output + key_and_value

    def mlp_weights(self) -> int:
        """Return the weights of one feed-forward layer (one expert's), without biases."""
        return (3 if self.gated_mlp else 2) * self.hidden_size * self.intermediate_size

    def parameters(self) -> int:
        """Return the number of parameters, shared ones counted once."""
        embedding = self.vocab_size * self.hidden_size
        head = 0 if self.tied else embedding
        if self.model_type == "gpt2":
            embedding += self.max_positions * self.hidden_size
        final_norm = (2 if self.model_type == "gpt2" else 1) * self.hidden_size
        return embedding + head + final_norm + self.layers * self._layer_parameters()

    def _layer_parameters(self) -> int:
        router = self.hidden_size * self.experts
        matrices = self.attention_weights() + max(1, self.experts) * self.mlp_weights() + router
        if self.model_type == "gpt2":
            norms = 4 * self.hidden_size
            biases = 3 * self.hidden_size + self.hidden_size
            return matrices + norms + biases + self.intermediate_size + self.hidden_size
        norms = 2 * self.hidden_size
        if self.model_type == "qwen3":
            norms += 2 * self.head_dim
        biases = 0
        if self.model_type == "qwen2":
            biases = (self.heads + 2 * self.kv_heads) * self.head_dim
        return matrices + norms + biases

    def kv_cache_bytes_per_token(self, bytes_per_value: float) -> float:
        """Return what one token of one sequence takes in the cache, in bytes."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_per_value

    def memory_bytes(
        self,
        bytes_per_weight: float,
        batch_size: int,
        tokens_per_sequence: int,
        bytes_per_cache_value: float | None = None,
    ) -> int:
        """Return an estimate of weights plus key-value cache, in bytes.

        Activations and the engine's own buffers come on top; a lower bound for "does it fit".

        Args:
            bytes_per_weight: 4 for fp32, 2 for bf16 and fp16, about 0.5 for 4-bit.
            batch_size: sequences in progress at once.
            tokens_per_sequence: prompt and output together.
            bytes_per_cache_value: that of the weights if not given.
        """
        value = bytes_per_weight if bytes_per_cache_value is None else bytes_per_cache_value
        cache = self.kv_cache_bytes_per_token(value) * batch_size * tokens_per_sequence
        return round(self.parameters() * bytes_per_weight + cache)

    def to_config(self) -> dict[str, Any]:
        """Return the content of a Hugging Face ``config.json`` for this architecture."""
        common = {
            "model_type": self.model_type,
            "architectures": [_CLASS_NAMES[self.model_type]],
            "vocab_size": self.vocab_size,
            "tie_word_embeddings": self.tied,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "dtype": "bfloat16",
            "torch_dtype": "bfloat16",
        }
        if self.model_type == "gpt2":
            return common | {
                "n_embd": self.hidden_size,
                "n_layer": self.layers,
                "n_head": self.heads,
                "n_inner": self.intermediate_size,
                "n_positions": self.max_positions,
                "layer_norm_epsilon": self.norm_eps,
            }
        config = common | {
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_positions,
            "rms_norm_eps": self.norm_eps,
            "rope_theta": self.rope_theta,
            "hidden_act": "silu",
        }
        if self.rope_scaling is not None:
            config["rope_scaling"] = dict(self.rope_scaling)
        if self.model_type in ("mistral", "mixtral"):
            config["sliding_window"] = self.sliding_window
        if self.experts:
            config |= {
                "num_local_experts": self.experts,
                "num_experts_per_tok": self.experts_per_token,
            }
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any], name: str) -> "Architecture | None":
        """Return the architecture a ``config.json`` describes; None for a family not known here.

        Raises:
            KeyError: the file lacks a dimension.
        """
        model_type = config.get("model_type")
        if model_type not in SUPPORTED_TYPES:
            return None
        if model_type == "gpt2":
            return _gpt2_from_config(config, name)
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        scaling = dict(rope) if rope.get("rope_type", "default") != "default" else None
        heads = config["num_attention_heads"]
        mixture = model_type == "mixtral"
        return cls(
            name=name,
            model_type=model_type,
            hidden_size=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            intermediate_size=config["intermediate_size"],
            vocab_size=config["vocab_size"],
            max_positions=config.get("max_position_embeddings", 2048),
            norm_eps=config.get("rms_norm_eps", 1e-6),
            tied=config.get("tie_word_embeddings", model_type in ("qwen2", "qwen3")),
            rope_theta=rope.get("rope_theta") or config.get("rope_theta", 10_000.0),
            rope_scaling=scaling,
            sliding_window=_sliding_window(config),
            experts=config["num_local_experts"] if mixture else 0,
            experts_per_token=config["num_experts_per_tok"] if mixture else 0,
            bos_token_id=config.get("bos_token_id"),
            eos_token_id=_first(config.get("eos_token_id")),
        )


_CLASS_NAMES: Mapping[ModelType, str] = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
}


def _gpt2_from_config(config: Mapping[str, Any], name: str) -> Architecture:
    hidden = config["n_embd"]
    heads = config["n_head"]
    return Architecture(
        name=name,
        model_type="gpt2",
        hidden_size=hidden,
        layers=config["n_layer"],
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        intermediate_size=config.get("n_inner") or 4 * hidden,
        vocab_size=config["vocab_size"],
        max_positions=config.get("n_positions", 1024),
        norm_eps=config.get("layer_norm_epsilon", 1e-5),
        tied=config.get("tie_word_embeddings", True),
        rope_theta=None,
        bos_token_id=config.get("bos_token_id"),
        eos_token_id=_first(config.get("eos_token_id")),
    )


def _sliding_window(config: Mapping[str, Any]) -> int | None:
    window: int | None = config.get("sliding_window")
    # Qwen's files name a window even where it is switched off.
    if config["model_type"] in ("qwen2", "qwen3") and not config.get("use_sliding_window"):
        return None
    return window


def _first(token_id: int | list[int] | None) -> int | None:
    return token_id[0] if isinstance(token_id, list) else token_id
