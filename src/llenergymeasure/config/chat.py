"""How a chat model is asked: through its template, as its users ask it."""

from typing import Any

from pydantic import Field, model_validator

from llenergymeasure.config.section import Section

OWN_TEMPLATE, NO_TEMPLATE = "auto", "none"

_SETTLED = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "max_length",
        "messages",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "sanitize_control_tokens",
        "tokenize",
        "tokenizer_kwargs",
        "truncation",
    }
)
"""Arguments of transformers' ``apply_chat_template`` that are no variables of a template."""


class ChatConfig(Section):
    """Texts of the data set as a user's messages, through a chat template."""

    template: str = Field(
        default=OWN_TEMPLATE,
        min_length=1,
        max_length=4096,
        description="auto is the model's own chat template; none sends texts bare; else a file "
        "with a template in Jinja.",
        examples=["auto", "none", "template.jinja"],
    )
    system: str | None = Field(
        default=None,
        min_length=1,
        description="A system message, put before each chat that has none of its own.",
        examples=["You are a helpful assistant."],
    )
    arguments: dict[str, Any] | None = Field(
        default=None,
        description="Variables of the template.",
        examples=[{"enable_thinking": False}],
    )

    @model_validator(mode="after")
    def _for_a_template(self) -> "ChatConfig":
        if not self.templated and (self.system is not None or self.arguments):
            raise ValueError(
                "template: none has no place for system and arguments; remove them, or template"
            )
        settled = sorted(_SETTLED & set(self.arguments or ()))
        if settled:
            raise ValueError(f"arguments.{settled[0]} is no variable of a template; remove it")
        return self

    @property
    def templated(self) -> bool:
        """Whether texts go through a template."""
        return self.template != NO_TEMPLATE
