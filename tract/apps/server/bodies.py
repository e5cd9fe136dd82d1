"""What goes over the wire: the JSON of requests and answers, as the OpenAPI page shows it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tract.judge.requests import number_as_text, whole_number_as_text

Status = Literal["ok", "no_cue", "truncated_cot", "low_score_mass", "unreadable_score", "over_length", "error"]


def _whole(value: object) -> object:
    """JSON has one kind of number: 3.0 is a whole one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_Whole = Annotated[int, Field(ge=1), BeforeValidator(_whole)]


_MOST = 2**53 - 1  # whole numbers up to here are exact in every program that reads JSON


def _id(value: object) -> object:
    """A whole number as text; anything else as it is, so that its type is refused."""
    return whole_number_as_text(value) if isinstance(value, (int, float)) and abs(value) <= _MOST else value


_Text = Annotated[str, BeforeValidator(number_as_text, json_schema_input_type=str | float | bool)]
_Id = Annotated[str, BeforeValidator(_id, json_schema_input_type=str | Annotated[int, Field(ge=-_MOST, le=_MOST)])]


class _RequestBody(BaseModel):
    """Of a request: types are what they say ("3" is no number), but texts may be numbers; an unknown key is an error, not ignored."""

    model_config = ConfigDict(strict=True, extra="forbid")


class RubricBody(_RequestBody):
    """The criterion that a response is graded by."""

    criteria: str = Field(description="The question that the score answers.", examples=["Is the response helpful?"])
    descriptions: dict[str, str] = Field(
        default={},
        max_length=100,
        description="What deserves each score: score -> description. May be empty.",
        examples=[{"1": "It does not help at all.", "5": "It answers all that was asked."}],
    )


class GradeBody(_RequestBody):
    """One response that is to be graded."""

    instruction: _Text = Field(
        description="What was asked; a number, true or false is taken as its text, as in the other texts.",
        examples=["Name a prime number above 10."],
    )
    response: _Text = Field(description="What is graded; may be empty.", examples=["11 is one."])
    rubric: RubricBody | str | None = Field(
        default=None,
        description="The criterion: an object, a text (the criterion, with a line for each score below it or without scores), or null "
        "(or a blank text) for the judge's own wording without one. A text that leaves doubt which its scores are is refused.",
        examples=["Is the answer right?"],
    )
    reference_answer: _Text | None = Field(default=None, description="An answer that deserves the best score.")
    id: _Id | None = Field(
        default=None, description="Text or a whole number; comes back with the grade, as text; made of the content where none is given."
    )
    n_cot: _Whole | None = Field(default=None, description="CoTs whose scores are averaged; null for the judge's own number.")


class BatchBody(_RequestBody):
    """Several responses that are to be graded; all are taken, or none."""

    items: list[GradeBody] = Field(min_length=1, description="Graded together, and answered in this order.")


class CotOut(BaseModel):
    """What was read behind one CoT."""

    feedback: str
    score: float | None = Field(description="In points; null where there is none.")
    status: Status
    distribution: dict[str, float] = Field(description="Score -> probability, from the full softmax.")
    thoughts: str = Field(default="", description="What a reasoning model thought before; empty for all others.")


class GradeOut(BaseModel):
    """A grade. Without status "ok" it has no score, or one that is to be looked at; ``error`` says what went wrong."""

    score: float | None = Field(description="In points, the mean over the CoTs that gave one; null where none did.")
    status: Status
    distribution: dict[str, float] = Field(description="Score -> probability, the mean over the CoTs.")
    feedback: str = Field(description="The first CoT.")
    feedbacks: list[str]
    interval: tuple[float, float] | None = Field(description="Where the score of another draw lies with probability 0.9, in points.")
    standard_error: float | None = Field(description="From the spread over the CoTs; null with fewer than two.")
    score_mass: float | None = Field(description="The probability of all scores together.")
    cots: list[CotOut]
    shortened: bool = Field(description="Whether the middle of a text was left out.")
    calibrated: bool
    raw_score: float | None = Field(description="Before calibration.")
    id: str
    error: str | None
    ignored: list[str] = Field(description="What of the request the judge's prompt has no place for: rubric, reference_answer, prompt.")


class BatchOut(BaseModel):
    """The grades of a batch, in the order of its items."""

    grades: list[GradeOut]
    counts: dict[Status, int] = Field(description="How many grades have each status.")


class HealthOut(BaseModel):
    """How the server is."""

    status: Literal["ok", "shutting down"]
    judge: str
    grid: list[str]
    n_cot: int
    pending: int = Field(description="Items that wait or are graded.")


class LimitsOut(BaseModel):
    """What a request may ask for."""

    max_queue: int
    max_batch_items: int
    max_body_bytes: int
    max_n_cot: int
    request_timeout_s: float


class JudgeOut(BaseModel):
    """How the judge asks and reads, and how well it did."""

    name: str
    prompt: dict[str, Any] = Field(description="Wording of the prompt.")
    cue: str = Field(description="What stands before the score.")
    grid: list[str] = Field(description="The scores that it gives.")
    fixed_grid: bool = Field(description="Whether rubrics must keep to the grid.")
    use_cot: bool
    predictor: str
    n_cot: int
    sampling: dict[str, Any]
    max_length: int | None = Field(description="Tokens of prompt, CoT, cue and score together; null for no limit.")
    overlong: str
    least_score_mass: float
    metrics: dict[str, Any]
    limits: LimitsOut


class ErrorOut(BaseModel):
    """Why a request was not answered, in one line."""

    error: str
