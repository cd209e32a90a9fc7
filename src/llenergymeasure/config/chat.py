"""How a chat model is asked: through its template, as its users ask it."""

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from llenergymeasure.config.section import PathText, Section, Text

OWN_TEMPLATE, NO_TEMPLATE = "auto", "none"


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

    @property
    def templated(self) -> bool:
        """Whether texts go through a template."""
        return self.template != NO_TEMPLATE
