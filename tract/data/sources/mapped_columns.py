"""A source of judge examples in any layout: the configuration maps fields to columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

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

SOURCE_VERSION = 4  # raise it when rows give different examples than before: cached examples are then rebuilt
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

_T = TypeVar("_T")
_Given = dict[str, tuple[object, str]]  # field -> (value, column)


class MappedColumns:
    """Local files in any layout, by a mapping from field to column.

    Only ``instruction`` and ``response``, or ``prompt``, are needed in each row; of other fields a blank cell, null, NaN and a
    missing key all mean that the row has none. A score without a CoT is a rating: it counts for the target, the mean over all raters
    of a response; ``target_score`` wins where it is given. Without a ``rater``, equal rows are votes of different raters. Without a
    ``question_id`` the instruction (else the prompt) identifies the question. A mapped ``id`` tells items with the same text apart
    (``tract.data.grouping``).

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
        self._field_columns = {field: column for field, column in self.columns.items() if field not in _OF_RATERS}
        self.ids_tell_apart = "id" in self.columns
        self.rows_are_ratings = self.raters.rater is not None
        self.description_columns = _by_label(columns.get("score_descriptions"))
        self.rubric = _rubric_for_all(rubric)

    def rows(self) -> Iterator[RawRow]:
        """The rows of the files.

        Raises:
            DataError: if there is nothing that can be read at ``path``; after the last row, if no row has a column that is mapped.
        """
        return self._with_columns_seen(read_rows(self.path))

    def _with_columns_seen(self, rows: Iterator[RawRow]) -> Iterator[RawRow]:
        """The rows; a column that none of them has is a mistake, while one that some lack has no value there."""
        missing = {**self._field_columns, **self.raters.mapped()}
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

    def to_example(self, row: RawRow, grid: ScoreGrid) -> JudgeExample:
        """The example of one row.

        Raises:
            ValueError: if the row cannot be used.
            ConfigError: if a score description belongs to no score of the grid.
        """
        columns = fields.columns_of(row.data)
        given = self._given_values(columns)
        prompt = _read(fields.filled_text, given, "prompt")
        instruction = _read(fields.filled_text, given, "instruction") or ""
        response = _read(fields.text, given, "response") or ""  # an empty one can be judged
        reference = _read(fields.text, given, "reference_answer")
        rubric = self._rubric(columns, given, grid)
        annotations, ratings = self.raters.judgements(columns, grid)
        question_id = _read(fields.identifier, given, "question_id") or fields.short_hash(instruction or prompt, length=16)
        computed_id = fields.content_id(question_id, prompt, instruction, response, reference, rubric)
        return JudgeExample(
            id=_read(fields.identifier, given, "id") or computed_id,
            question_id=question_id,
            instruction=instruction,
            response=response,
            reference_answer=reference,
            rubric=rubric,
            prompt=prompt,
            annotations=annotations,
            ratings=ratings,
            target_score=self._target_score(given, grid),
            split=self._split(given),
        )

    def _given_values(self, columns: Mapping[str, object]) -> _Given:
        """The values of a row by field, without those of ``raters`` and of fields without a value, unless they are needed.

        Raises:
            ValueError: if the row lacks the column of a needed field.
        """
        names = self._field_columns
        given = {field: (fields.value_of(columns, names[field]), names[field]) for field in _NEEDED if field in names}
        optional = {field: (fields.optional_value(columns, name), name) for field, name in names.items() if field not in _NEEDED}
        return given | {field: pair for field, pair in optional.items() if pair[0] is not None}

    def fingerprint(self) -> str:
        """Changes with the content of the files, the mapping of columns and the rubric."""
        return local_fingerprint(self.path, type(self).__name__, SOURCE_VERSION, self.columns, self.description_columns, repr(self.rubric))

    def describe(self) -> str:
        """The source in a few words."""
        return f"mapped columns of {self.path}"

    def _rubric(self, columns: Mapping[str, object], given: _Given, grid: ScoreGrid) -> Rubric | None:
        labels = [*self.description_columns, *(label for label, _ in (self.rubric.descriptions if self.rubric else ()))]
        if strangers := [label for label in labels if label not in grid.labels]:
            raise ConfigError(
                f"data.source: score descriptions are given for {', '.join(strangers)}, but grid.labels has {', '.join(grid.labels)}; "
                f"{grid_of(labels, grid)}"
            )
        criteria = None if self.rubric is not None else _read(fields.filled_text, given, "criteria")
        if criteria is None:
            return self.rubric
        described = (
            (label, fields.optional_text(fields.optional_value(columns, name), name)) for label, name in self.description_columns.items()
        )
        return Rubric(criteria, tuple((label, description) for label, description in described if description is not None))

    def _target_score(self, given: _Given, grid: ScoreGrid) -> float | None:
        target = _read(fields.optional_number, given, "target_score")
        return None if target is None else fields.within_grid(target, self.columns["target_score"], grid)

    def _split(self, given: _Given) -> str | None:
        split = _read(fields.text, given, "split")
        if split is not None and split not in SPLITS:
            raise ValueError(f"{self.columns['split']}: found {fields.shown(split)}; {', '.join(SPLITS)} or null are accepted")
        return split


def _read(reader: Callable[[object, str], _T], given: _Given, field: str) -> _T | None:
    """The value of a field, read by a function of ``fields``; None where the row has none."""
    return reader(*given[field]) if field in given else None


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
