"""Which column of a file holds which field of a request, and the request of a row. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tract.common.errors import ConfigError, DataError
from tract.common.near_names import near_names
from tract.data.readers import fields
from tract.data.readers.rows import RawRow, RowProblem
from tract.judge.requests import GradeRequest, rubric_of
from tract.text.schema import Rubric

FIELDS = ("instruction", "response", "reference_answer", "id", "rubric", "criteria", "score_descriptions")
REQUIRED = ("instruction", "response")
_DESCRIPTION = "score_descriptions."


@dataclass(frozen=True)
class Columns:
    """Field -> column, for the fields that are there.

    Attributes:
        of: the fields of ``FIELDS``. descriptions: score label -> column.
    """

    of: Mapping[str, str]
    descriptions: Mapping[str, str]

    def to_dict(self) -> dict[str, str]:
        """As it is written on the command line."""
        return {**self.of, **{f"{_DESCRIPTION}{label}": column for label, column in self.descriptions.items()}}

    def request(self, row: RawRow, rubric: Rubric | None) -> GradeRequest:
        """The request of a row.

        Args:
            rubric: for every row; None takes that of the row, if it has one.

        Raises:
            ValueError: if the row or one of its fields cannot be used; the message names the column, not the place.
        """
        if isinstance(row.data, RowProblem):
            raise ValueError(row.data.reason)
        cells = fields.columns_of(row.data)
        own_id = fields.optional_value(cells, self.of.get("id"))
        return GradeRequest(
            instruction=fields.filled_text(fields.value_of(cells, self.of["instruction"]), self.of["instruction"]),
            response=fields.text(fields.value_of(cells, self.of["response"]), self.of["response"]),
            rubric=self._rubric(cells) if rubric is None else rubric,
            reference_answer=self._optional(cells, "reference_answer"),
            id=None if own_id is None else fields.identifier(own_id, self.of["id"]),
        )

    def request_or_reason(self, row: RawRow, rubric: Rubric | None) -> tuple[GradeRequest | None, str]:
        """(the request, "") of a row, or (None, what is wrong with it and where)."""
        try:
            return self.request(row, rubric), ""
        except ValueError as error:  # DataError is one
            return None, f"{row.place}: {error}"

    def _optional(self, cells: Mapping[str, object], field: str) -> str | None:
        column = self.of.get(field)
        return None if column is None else fields.optional_text(cells.get(column), column)

    def _rubric(self, cells: Mapping[str, object]) -> Rubric | None:
        """That of the row; lines of JSON may leave out what they have none of."""
        own = fields.optional_value(cells, self.of.get("rubric"))
        parts = self._of_parts(cells)
        if own is None:
            return parts
        if parts is not None:
            raise ValueError(f"{self.of['rubric']}: is given beside {self.of['criteria']}; a row has one rubric, leave one of them empty")
        try:
            return rubric_of(without_nulls(own))
        except DataError as error:
            raise ValueError(f"{self.of['rubric']}: {str(error).removeprefix('rubric: ')}") from None

    def _of_parts(self, cells: Mapping[str, object]) -> Rubric | None:
        """That of the columns of criteria and descriptions."""
        described: dict[str, str] = {}
        whole = without_nulls(fields.optional_value(cells, self.of.get("score_descriptions")))
        if isinstance(whole, str) and whole.lstrip().startswith("{"):  # as CSV files hold an object
            whole = without_nulls(_object_of(whole, self.of["score_descriptions"]))
        if isinstance(whole, Mapping):
            texts = {str(label): fields.optional_text(text, f"{self.of['score_descriptions']}.{label}") for label, text in whole.items()}
            described |= {label: text for label, text in texts.items() if text is not None}
        elif whole is not None:
            raise ValueError(f"{self.of['score_descriptions']}: found {fields.shown(whole)}; an object of score and text is accepted")
        for label, column in self.descriptions.items():
            if (text := fields.optional_text(cells.get(column), column)) is not None:
                described[label] = text
        criteria = self._optional(cells, "criteria")
        if criteria is not None:
            return Rubric(fields.filled_text(criteria, self.of["criteria"]), described)
        if described:
            raise ValueError(f"{self.of.get('criteria', 'criteria')}: missing beside descriptions of scores; a rubric needs its criterion")
        return None


def _object_of(text: str, column: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError(f"{column}: found {fields.shown(text)}; JSON of an object of score and text is accepted") from None


def without_nulls(given: object) -> object:
    """A mapping without its nulls, within it too: a struct of Parquet has the scores of all rows in each; a map is read as pairs."""
    if isinstance(given, list) and given and all(isinstance(pair, tuple) and len(pair) == 2 for pair in given):
        given = dict(given)
    if not isinstance(given, Mapping):
        return given
    return {name: without_nulls(value) for name, value in given.items() if value is not None}


def parse_columns(assignments: Sequence[str], others: Collection[str] = ()) -> dict[str, str]:
    """Field -> column of FIELD=COLUMN pairs; FIELD= stands for the column without a name.

    Args:
        others: fields that are accepted beside those of ``FIELDS``.

    Raises:
        ConfigError: if one is no such pair, its field is unknown or stands twice.
    """
    known = (*FIELDS, *others)
    found: dict[str, str] = {}
    for assignment in assignments:
        field, equals, column = assignment.partition("=")
        if not equals or not field:
            raise ConfigError(f"--columns: {assignment!r} is no FIELD=COLUMN pair, e.g. instruction=question response=answer")
        if field in found:
            raise ConfigError(f"--columns: {field} is given twice, as {found[field]!r} and {column!r}")
        if field.startswith(_DESCRIPTION):
            _check_label(field)
        elif field not in known:
            near = near_names(field, known, most=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(f"--columns: unknown field {field!r}; {hint}accepted are {', '.join(known)}, {_DESCRIPTION}SCORE")
        found[field] = column
    return found


def _check_label(field: str) -> None:
    try:
        fields.number(field.removeprefix(_DESCRIPTION), field)
    except ValueError:
        raise ConfigError(f"--columns: {field!r} names no score; write the score behind the point, e.g. {_DESCRIPTION}1=COLUMN") from None


def columns_in(
    names: Collection[str], given: Mapping[str, str], file: str, required: Sequence[str] = REQUIRED, others: Collection[str] = ()
) -> Columns:
    """The columns of a file: those that were given, and for other fields those of their own names.

    Args:
        names: the columns that the file has. given: field -> column, of ``parse_columns``. file: its name, for messages.
        required: fields that the file must have. others: fields that are looked for beside those of ``FIELDS``.

    Raises:
        DataError: if a column that was given or is required is not there.
    """
    named = {field: fields.column_called(field, names) for field in (*FIELDS, *others) if field not in given}
    found = {field: column for field, column in named.items() if column is not None}
    found |= {name: name for name in names if name.startswith(_DESCRIPTION) and name not in given and _is_label(name)}
    for field, column in given.items():
        if (there := fields.column_called(column, names)) is None:
            called = repr(column) if column else "without a name"
            meant = fields.did_you_mean(column, names)
            raise DataError(f"{file}: has no column {called} (--columns {field}={column}){meant}; {_present(names)}")
        found[field] = there
    for field in required:
        if field not in found:
            meant = fields.did_you_mean(field, names)
            raise DataError(f"{file}: has no column {field!r}{meant}; {_present(names)}; say which one it is with --columns {field}=COLUMN")
    labels = {name.removeprefix(_DESCRIPTION): column for name, column in found.items() if name.startswith(_DESCRIPTION)}
    return Columns(
        {field: column for field, column in found.items() if not field.startswith(_DESCRIPTION)},
        dict(sorted(labels.items(), key=lambda item: float(item[0]))),
    )


def _is_label(name: str) -> bool:
    try:
        fields.number(name.removeprefix(_DESCRIPTION), name)
    except ValueError:
        return False
    return True


def _present(names: Collection[str]) -> str:
    return f"it has {fields.shown(list(names), 300)}" if names else "it has no row with columns"
