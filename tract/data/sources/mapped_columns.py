"""A source of judge examples in a layout of the user's own: YAML says which column holds which field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tract.common.errors import ConfigError, DataError
from tract.common.near_names import near_names
from tract.config.vocabulary import SPLITS
from tract.data.readers import fields
from tract.data.readers.files import local_fingerprint, read_rows
from tract.data.readers.rows import RawRow
from tract.data.rubrics.mapping import quoting
from tract.data.rubrics.text import rubric_from_text
from tract.data.sources.rater_columns import KEY, LISTS, RaterColumns, rater_problems
from tract.text.schema import JudgeExample, Rubric
from tract.text.score_grid import ScoreGrid, grid_of

SOURCE_VERSION = 4  # raise it when rows are turned into other examples than before: cached examples are then built anew
COLUMN_FIELDS = (
    "instruction",
    "response",
    "reference_answer",
    "criteria",
    "score_descriptions",
    "prompt",
    "cot",
    "score",
    "rater",
    "target_score",
    "question_id",
    "id",
    "split",
)
_NEEDED = ("prompt", "instruction", "response")
_OF_RATERS = ("score", "cot", "rater")


class MappedColumns:
    """Own files in any layout: YAML says which column holds which field.

    Only ``instruction`` and ``response``, or ``prompt``, are needed in each row; of other fields a blank cell, null, NaN and a
    missing key all mean that the row has none. A score without a CoT is a rating: it counts for the target, the mean over all raters
    of a response; ``target_score`` wins where it is given. Without a ``rater``, equal rows are votes of different raters. Without a
    ``question_id`` the instruction (else the prompt) identifies the question. A mapped ``id`` tells items with the same text apart
    (``tract.data.gathering``).

    Args:
        path: a local file or folder.
        columns: field -> column, or null. The fields are those of ``COLUMN_FIELDS``; ``score_descriptions`` maps score labels to
            columns. ``prompt``, or ``instruction`` and ``response``, are required; ``cot`` requires ``score``. ``score`` may be a list of
            columns, one for each rater; ``cot`` is then a list of as many, null for a rater without CoTs.
        rubric: one rubric for all rows, as ``{criteria: text, descriptions: {label: text}}``, as a text of ``rubric_from_text``, or null.

    Raises:
        ConfigError: if the mapping cannot be used; all faults are named at once.
    """

    equal_rows_are_votes = True
    takes_rubric = True

    def __init__(self, path: str, columns: Mapping[str, Any], rubric: Mapping[str, Any] | str | None = None) -> None:
        problems = [*_column_problems(columns), *_rubric_problems(columns, rubric)]
        if problems:
            raise ConfigError("; ".join(problems))
        self.path = path
        self.columns = {field: column for field, column in columns.items() if column is not None and field != "score_descriptions"}
        self.raters = RaterColumns.of(self.columns)
        self.ids_tell_apart = "id" in self.columns
        self.rows_are_ratings = self.raters.rater is not None
        self.description_columns = _by_label(columns.get("score_descriptions"))
        self.rubric = _rubric_for_all(rubric)

    def rows(self) -> Iterator[RawRow]:
        """The rows of the files.

        Raises:
            DataError: if there is nothing that can be read at ``path``; behind the last row, if no row has a column that is mapped.
        """
        return self._with_columns_seen(read_rows(self.path))

    def _with_columns_seen(self, rows: Iterator[RawRow]) -> Iterator[RawRow]:
        """The rows; a column that none of them has is a mistake, while one that some lack has no value there."""
        missing = {**self._plain_columns(), **self.raters.mapped()}
        missing |= {f"score_descriptions.{label}": name for label, name in self.description_columns.items()}
        found: dict[str, None] = {}  # the columns of all rows, as long as one is missing
        for row in rows:
            if missing and isinstance(row.data, Mapping):
                found |= dict.fromkeys(map(str, row.data))
                missing = {field: name for field, name in missing.items() if fields.column_called(name, row.data) is None}
            yield row
        if missing and found:
            named = "; ".join(
                f"{KEY}.{field}: no row has a column {name!r}{fields.did_you_mean(name, found)}" for field, name in missing.items()
            )
            raise DataError(f"{named}; the file has {fields.shown(sorted(found), 300)}; name one of these, or null")

    def _plain_columns(self) -> dict[str, str]:
        """Field -> column, without those of ``raters``."""
        return {field: column for field, column in self.columns.items() if field not in _OF_RATERS}

    def to_example(self, row: RawRow, grid: ScoreGrid) -> JudgeExample:
        """The example of one row.

        Raises:
            ValueError: if the row cannot be used.
            ConfigError: if a score description belongs to no score of the grid.
        """
        columns = fields.columns_of(row.data)
        plain = self._plain_columns()
        needed = {field: fields.value_of(columns, plain[field]) for field in _NEEDED if field in plain}
        values = {field: fields.optional_value(columns, column) for field, column in plain.items() if field not in _NEEDED}
        prompt = fields.filled_text(needed["prompt"], self.columns["prompt"]) if "prompt" in needed else None
        instruction = fields.filled_text(needed["instruction"], self.columns["instruction"]) if "instruction" in needed else ""
        response = fields.text(needed["response"], self.columns["response"]) if "response" in needed else ""  # an empty one can be judged
        reference = fields.optional_text(values.get("reference_answer"), self.columns.get("reference_answer", ""))
        rubric = self._rubric(columns, values, grid)
        annotations, ratings = self.raters.judgements(columns, grid)
        if values.get("question_id") is not None:
            question_id = fields.identifier(values["question_id"], self.columns["question_id"])
        else:
            question_id = fields.short_hash(instruction or prompt, length=16)
        own_id = values.get("id")
        computed_id = fields.content_id(question_id, prompt, instruction, response, reference, rubric)
        return JudgeExample(
            id=computed_id if own_id is None else fields.identifier(own_id, self.columns["id"]),
            question_id=question_id,
            instruction=instruction,
            response=response,
            reference_answer=reference,
            rubric=rubric,
            prompt=prompt,
            annotations=annotations,
            ratings=ratings,
            target_score=self._target_score(values, grid),
            split=self._split(values),
        )

    def fingerprint(self) -> str:
        """Changes with the content of the files, the mapping of columns and the rubric."""
        return local_fingerprint(self.path, type(self).__name__, SOURCE_VERSION, self.columns, self.description_columns, repr(self.rubric))

    def describe(self) -> str:
        """The source in a few words."""
        return f"mapped columns of {self.path}"

    def _rubric(self, columns: Mapping[str, object], values: Mapping[str, object], grid: ScoreGrid) -> Rubric | None:
        labels = [*self.description_columns, *(label for label, _ in (self.rubric.descriptions if self.rubric else ()))]
        if strangers := [label for label in labels if label not in grid.labels]:
            raise ConfigError(
                f"data.source: score descriptions are given for {', '.join(strangers)}, but grid.labels has {', '.join(grid.labels)}; "
                f"{grid_of(labels, grid)}"
            )
        if self.rubric is not None or values.get("criteria") is None:
            return self.rubric
        criteria = fields.filled_text(values["criteria"], self.columns["criteria"])
        described = (
            (label, fields.optional_text(fields.optional_value(columns, name), name)) for label, name in self.description_columns.items()
        )
        return Rubric(criteria, tuple((label, description) for label, description in described if description is not None))

    def _target_score(self, values: Mapping[str, object], grid: ScoreGrid) -> float | None:
        column = self.columns.get("target_score", "")
        target = fields.optional_number(values.get("target_score"), column)
        return None if target is None else fields.within_grid(target, column, grid)

    def _split(self, values: Mapping[str, object]) -> str | None:
        split = fields.optional_text(values.get("split"), self.columns.get("split", ""))
        if split is not None and split not in SPLITS:
            raise ValueError(f"{self.columns['split']}: found {fields.shown(split)}; {', '.join(SPLITS)} or null are accepted")
        return split


def _column_problems(columns: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a mapping of columns, one line each."""
    key = KEY
    for field in columns:
        if field not in COLUMN_FIELDS:
            near = near_names(str(field), COLUMN_FIELDS, most=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            yield f"{key}.{field}: unknown; {hint}accepted are {', '.join(COLUMN_FIELDS)}"
    given = {field for field, column in columns.items() if column is not None}
    for field in sorted(given.intersection(COLUMN_FIELDS)):
        column = columns[field]
        if field == "score_descriptions":
            yield from _label_problems(f"{key}.{field}", column, "column")
        elif not isinstance(column, str) and not (field in LISTS and isinstance(column, (list, tuple))):
            yield f"{key}.{field}: found {fields.shown(column)}; the name of a column, or null, is accepted"
    if "prompt" not in given and not {"instruction", "response"} <= given:
        yield f"{key}: a finished prompt, or instruction and response, are required; mapped are {', '.join(sorted(given)) or 'none'}"
    yield from rater_problems(columns)
    if "score_descriptions" in given and "criteria" not in given:
        yield f"{key}.score_descriptions: is mapped without {key}.criteria; a rubric needs its criterion, map both"


def _rubric_for_all(rubric: Mapping[str, Any] | str | None) -> Rubric | None:
    if isinstance(rubric, str):
        return rubric_from_text(rubric)
    return None if rubric is None else Rubric(rubric["criteria"], rubric.get("descriptions") or {})


def _rubric_problems(columns: Mapping[str, Any], rubric: Mapping[str, Any] | str | None) -> Iterator[str]:
    key = "data.source.rubric"
    if rubric is None:
        return
    if columns.get("criteria") is not None:
        yield f"{key}: is given beside data.source.columns.criteria; set one of them to null"
    if isinstance(rubric, str):
        if not rubric.strip():
            yield f"{key}: {rubric!r} is blank; give the text of a rubric, or null"
            return
        try:
            rubric_from_text(rubric)
        except DataError as error:
            yield f"data.source.{error}"
        return
    for name in rubric:
        if name not in ("criteria", "descriptions"):
            yield f"{key}.{name}: unknown; accepted are criteria, descriptions"
    if not isinstance(rubric.get("criteria"), str):
        yield f"{key}.criteria: found {fields.shown(rubric.get('criteria'))}; text is accepted"
    if rubric.get("descriptions") is not None:
        yield from _label_problems(f"{key}.descriptions", rubric["descriptions"], "text")


def _label_problems(key: str, by_label: object, what: str) -> Iterator[str]:
    if not isinstance(by_label, Mapping):
        yield f"{key}: found {fields.shown(by_label)}; a mapping of score label to {what} is accepted"
        return
    for label, value in by_label.items():
        try:
            fields.number(label, key)
        except ValueError:
            yield f"{key}.{label}: is no score label; write the labels of grid.labels{quoting(label)}"
        if not isinstance(value, str):
            yield f"{key}.{label}: found {fields.shown(value)}; a {what} is accepted{quoting(value)}"


def _by_label(by_label: Mapping[Any, Any] | None) -> dict[str, str]:
    """Label -> value in ascending order of the score; YAML may have read the labels as numbers."""
    return {str(label): value for label, value in sorted((by_label or {}).items(), key=lambda item: float(item[0]))}
