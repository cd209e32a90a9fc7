"""The shape of a decoder-only transformer: data from which cost and memory follow."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_FAMILIES = frozenset({"llama", "mistral", "mixtral", "qwen2", "qwen3", "gpt2"})
"""Values of ``model_type`` whose weights can be counted."""


@dataclass(frozen=True)
class Architecture:
    """A decoder-only transformer's dimensions.

    Attributes:
        name: the name people know it by.
        config: the content of its ``config.json``.
        model_type: its family, as Hugging Face names it.
        hidden_size: width of the residual stream.
        layers: number of transformer blocks.
        heads: query heads a block.
        kv_heads: key and value heads a block (fewer than ``heads`` in grouped-query attention).
        head_dim: width of one head.
        intermediate_size: width of the feed-forward layer, of one expert if there are several.
        vocab_size: rows of the embedding.
        max_positions: longest sequence it was made for, in tokens.
        tied: whether the output head shares the embedding's weights.
        rope_scaling: Hugging Face's ``rope_scaling`` mapping.
        sliding_window: keys a token can see, if limited.
        experts: experts a layer; 0 for a dense model.
        experts_per_token: experts that work on each token.
        text_tokens: first and one past the last id of a stretch of ordinary tokens, free of
            special ones; None where it is not known.
    """

    name: str
    config: Mapping[str, Any] = field(compare=False, repr=False)
    model_type: str
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_positions: int
    tied: bool = False
    rope_scaling: Mapping[str, Any] | None = None
    sliding_window: int | None = None
    experts: int = 0
    experts_per_token: int = 0
    text_tokens: tuple[int, int] | None = None

    @property
    def learned_positions(self) -> bool:
        """Whether positions are a table of weights, which ends, and not rotary."""
        return self.model_type == "gpt2"

    def attention_weights(self) -> int:
        """Return the weights of one layer's four attention matrices, without biases."""
        query_and_output = 2 * self.hidden_size * self.heads * self.head_dim
        key_and_value = 2 * self.hidden_size * self.kv_heads * self.head_dim
        return query_and_output + key_and_value

    def mlp_weights(self) -> int:
        """Return the weights of one feed-forward layer (one expert's), without biases."""
        matrices = 2 if self.model_type == "gpt2" else 3  # the others' have a gate
        return matrices * self.hidden_size * self.intermediate_size

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

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], name: str, text_tokens: tuple[int, int] | None = None
    ) -> "Architecture | None":
        """Return the architecture a ``config.json`` describes; None for a family not known here.

        Raises:
            KeyError: the file lacks a dimension.
        """
        model_type = config.get("model_type")
        if not isinstance(model_type, str) or model_type not in _FAMILIES:
            return None
        fields = _with_common_names(config) if model_type == "gpt2" else config
        heads = fields["num_attention_heads"]
        rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
        is_mixture = model_type == "mixtral"
        return cls(
            name=name,
            config=config,
            model_type=model_type,
            hidden_size=fields["hidden_size"],
            layers=fields["num_hidden_layers"],
            heads=heads,
            kv_heads=fields.get("num_key_value_heads") or heads,
            head_dim=fields.get("head_dim") or fields["hidden_size"] // heads,
            intermediate_size=fields["intermediate_size"],
            vocab_size=fields["vocab_size"],
            max_positions=fields.get("max_position_embeddings", 2048),
            tied=fields.get("tie_word_embeddings", model_type in ("qwen2", "qwen3")),
            rope_scaling=dict(rope) if rope.get("rope_type", "default") != "default" else None,
            sliding_window=_sliding_window(fields),
            experts=fields["num_local_experts"] if is_mixture else 0,
            experts_per_token=fields["num_experts_per_tok"] if is_mixture else 0,
            text_tokens=text_tokens,
        )


_ABSENT_IN_GPT2 = (
    "num_key_value_heads",
    "head_dim",
    "rope_parameters",
    "rope_scaling",
    "sliding_window",
)


def _with_common_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return GPT-2's ``config.json`` with the dimensions named as the other families name them."""
    return {
        **config,
        "hidden_size": config["n_embd"],
        "num_hidden_layers": config["n_layer"],
        "num_attention_heads": config["n_head"],
        "intermediate_size": config.get("n_inner") or 4 * config["n_embd"],
        "max_position_embeddings": config.get("n_positions", 1024),
        "tie_word_embeddings": config.get("tie_word_embeddings", True),
        **dict.fromkeys(_ABSENT_IN_GPT2),
    }


def _sliding_window(config: Mapping[str, Any]) -> int | None:
    window: int | None = config.get("sliding_window")
    # Qwen's files name a window even where it is switched off.
    if config["model_type"] in ("qwen2", "qwen3") and not config.get("use_sliding_window"):
        return None
    return window
