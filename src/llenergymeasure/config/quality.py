"""What a study asks of the answers' quality, so that a cheaper but worse setting is visible."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, field_validator

from llenergymeasure.config.section import Count, PathText, RunSection

OWN_TASK = "llem-small"


class QualityConfig(RunSection):
    """Quality of the answers, after the window. None of it is part of an experiment's id."""

    texts: PathText | None = Field(
        default=None,
        description="A text file, UTF-8, one text per line: each run's perplexity on it is "
        "computed with the engine that was measured.",
        examples=["texts/held_out.txt"],
    )
    max_text_tokens: int = Field(
        default=1024, ge=2, le=1_000_000, description="Tokens of each text that count."
    )
    command: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Program and arguments that judge the experiment once its engine has been "
        "released: LLEM_EXPERIMENT names a JSON file with its settings. The last line it prints "
        "is the score: a number, more is better; or right answers of all, as 37/50, which gives "
        "energy per right answer too.",
        examples=[["python3", "judge.py", "--quick"]],
    )
    tasks: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Tasks of lm-eval (an extra, quality) that are answered by choosing, asked of "
        f"the engine that was measured; {OWN_TASK} is 40 easy questions that need no download.",
        examples=[[OWN_TASK], ["arc_easy", "hellaswag"]],
    )
    task_items: Count | None = Field(default=None, description="Items of each task; default: all.")
    timeout_seconds: float = Field(
        default=3600, gt=0, le=864_000, description="Wall-clock limit of command or tasks."
    )

    def _contradictions(self) -> Iterator[str]:
        if self.texts is None and self.command is None and self.tasks is None:
            yield "give texts, command or both, or tasks"
        if self.command is not None and self.tasks is not None:
            yield "give command or tasks: a run has one score"

    @field_validator("texts")
    @classmethod
    def _check_texts(cls, texts: str | None) -> str | None:
        path = None if texts is None else Path(texts).expanduser().absolute()
        if path is not None and not path.is_file():
            raise ValueError("is no file here")
        return None if path is None else str(path)
