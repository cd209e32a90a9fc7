"""How a chat model is asked: through its template, as its users ask it."""

from typing import Any

from pydantic import Field, model_validator

from llenergymeasure.config.section import Section

OWN_TEMPLATE, NO_TEMPLATE = "auto", "none"


class ChatConfig(Section):
    """Texts of the data set as a user's messages, through a chat template."""

    template: str = Field(
        default=OWN_TEMPLATE,
        min_length=1,
        max_length=4096,
        description="Chat template: auto, the model's own; none, texts are sent bare; else a file "
        "in Jinja.",
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
        return self

    @property
    def templated(self) -> bool:
        """Whether texts go through a template."""
        return self.template != NO_TEMPLATE
