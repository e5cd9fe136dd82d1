r"""The tokens of a chat model's text: where the score is among them, and the probability of each score there. Pure.

Servers tell tokens as text and perhaps as bytes, and not always those of the text: a part of a character is "bytes:\xe5\xbe" or U+FFFD,
control tokens and blanks at the end are in one of the two alone, thoughts precede. So bytes are compared, from the end of the text, and
no further than to the score.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tract.inference.chat.numbers import plain_number
from tract.inference.judgement import MOST_MASS
from tract.text.score_grid import ScoreGrid
from tract.text.score_words import NUMBER_WORDS

# Of the grid's range. How far apart scores may be that a token is the beginning of, for it to count as the shortest one; where they are
# farther apart its probability is of none.
_NEAR = 1 / 8
# How far the mean could be moved by probability of none, up to which a distribution is used, as a share of the grid's range.
MOST_UNDECIDED = 0.02
_BYTES = re.compile(r"bytes:(?:\\x[0-9a-fA-F]{2})+")
_RAW_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_CONTROL = re.compile(rb"<[|\xef]?[^<>\s]{1,40}>|\[/?[A-Z_]{2,12}\]|")
_REPLACEMENT = "\ufffd".encode()
_UNKNOWN = b"\xff"  # no byte of UTF-8
_NUMBER = re.compile(
    r"(?P<before>(?:(?!-?\d|-$|\.|[\u2014\u2015]\d)[\W_])*)(?P<number>-?\d+(?:\.\d+)?\.?|\.\d*|-$|)(?P<after>.*)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Alternative:
    """What could stand at a place: its text, and its log-probability."""

    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was written.

    Attributes:
        text, logprob: as the server tells them. data: its bytes; None where they are not told.
        others: the most likely tokens at its place, which may hold itself.
    """

    text: str
    logprob: float
    data: bytes | None
    others: tuple[Alternative, ...]

    def known(self) -> bytes:
        """Its bytes, with 0xff for some that are not known."""
        data = bytes_of(self.text) if self.data is None else self.data
        return re.sub(b"(?:%b)+" % _REPLACEMENT, _UNKNOWN, data)

    def choices(self) -> tuple[Alternative, ...]:
        """The alternatives and what was written, which need not be among the most likely ones."""
        if any(other.text == self.text for other in self.others):
            return self.others
        return (*self.others, Alternative(self.text, self.logprob))


def bytes_of(text: str) -> bytes:
    """The bytes of a token by its text."""
    if _BYTES.fullmatch(text):
        return bytes.fromhex(text.removeprefix("bytes:").replace("\\x", ""))
    if raw := _RAW_BYTE.fullmatch(text):
        return bytes.fromhex(raw[1])
    return text.encode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the score begins: the number of its token, and the bytes of that token before it."""

    token: int
    offset: int


def place_of(tokens: Sequence[Token], text: str, start: int, end: int) -> Place | None:
    """The token of a score; None where the tokens are not those of the text.

    Args:
        text: what was written. start, end: of the score in it.
    """
    found = _placed([token.known() for token in tokens], text, start, end)
    if found is None:  # as in the vocabulary: marks in place of blanks
        found = _placed(
            [token.known().replace("\u2581".encode(), b" ").replace("\u0120".encode(), b" ") for token in tokens], text, start, end
        )
    return found


def _placed(pieces: Sequence[bytes], text: str, start: int, end: int) -> Place | None:
    tail, number = text[start:].rstrip().encode(), text[start:end].encode()
    count = len(pieces)
    while count and _CONTROL.fullmatch(pieces[count - 1].strip()) and not _ends_with(tail, pieces[count - 1].strip()):
        count -= 1
    stream = b"".join(pieces[:count]).rstrip()
    at = _from_end(stream, tail, number)
    if at is None:  # what follows the score was changed, e.g. cut at a stop text
        at = _by_context(stream, text, start, end)
    if at is None:
        return None
    for token, piece in enumerate(pieces):
        if at < len(piece):
            return Place(token, at)
        at -= len(piece)
    return None


def _ends_with(tail: bytes, piece: bytes) -> bool:
    return bool(piece) and tail.endswith(piece)


def _from_end(stream: bytes, tail: bytes, number: bytes) -> int | None:
    """Where the tail begins in the stream, if the stream ends in it."""
    if stream.endswith(tail):
        return len(stream) - len(tail)
    at = stream.rfind(number)
    while at >= 0:
        rest = stream[at:]
        if _UNKNOWN in rest and re.fullmatch(b".*?".join(re.escape(part) for part in rest.split(_UNKNOWN)), tail, re.DOTALL):
            return at
        at = stream.rfind(number, 0, at)
    return None


def _by_context(stream: bytes, text: str, start: int, end: int) -> int | None:
    """Where the score is, by the words before it, if these are found once in the stream behind all thoughts as in the text."""
    for length in (24, 10):
        before = text[max(0, start - length) : start].encode()
        found, at = before + text[start:end].encode(), len(stream)
        for _ in range(text[start:].encode().count(found) + 1):
            at = stream.rfind(found, 0, at) if at >= 0 else -1
        if at >= 0:
            return at + len(before)
    return None


@dataclass(frozen=True, slots=True)
class Spread:
    """The probability of each score of the grid.

    Attributes:
        probabilities: in the order of the grid.
        undecided: how far the mean could be moved by what may be of several scores and was given to none, as a share of the grid's range.
    """

    probabilities: tuple[float, ...]
    undecided: float


def spread_of(tokens: Sequence[Token], place: Place, written: str, grid: ScoreGrid) -> Spread | None:
    """The distribution at the place of the score that was written.

    A score of several tokens ("1", "0") has the product of their probabilities. A score that others begin with ("1", "10") has what those
    leave over where its continuation is told: behind what was written. Elsewhere it is its own where another token is the longer score as
    a whole ("10"). Where neither tells, a token counts as the shorter of near scores ("4", "4.5"), and as none of distant ones ("1", "10").

    Args:
        tokens, place: see ``place_of``. written: the score as it was written. grid: the scores.

    Returns:
        None where there are no probabilities, or they are no distribution.
    """
    reader = _Reader(tokens, written, grid)
    try:
        reader.read(place.token, place.offset, "", 1.0)
    except ValueError:
        return None
    mass = math.fsum(reader.found)
    if not 0 < mass <= MOST_MASS:
        return None
    return Spread(tuple(reader.found), reader.moved / mass / (grid.highest - grid.lowest))


class _Reader:
    """Walks along the tokens of the written score, and gives each alternative's probability to a score.

    Attributes:
        found: score -> probability. moved: points times probability, by what may be of several scores.
    """

    def __init__(self, tokens: Sequence[Token], written: str, grid: ScoreGrid) -> None:
        self._tokens, self._grid = tokens, grid
        self._words = not any(character.isdigit() for character in written)
        self._written = plain_number(written)
        self.found = [0.0] * len(grid.labels)
        self.moved = 0.0

    def read(self, index: int, offset: int, begun: str, reached: float) -> float:
        """The probability of what goes on behind ``begun`` (part of a number), given to scores; ``reached``: of coming here."""
        token = self._tokens[index]
        choices = [(choice, *self._number(choice.text, offset if choice.text == token.text else None, begun)) for choice in token.choices()]
        whole = {number for _, number, _ in choices}
        went_on = 0.0
        for choice, number, ended in choices:
            p = reached * _probability(choice.logprob)
            if begun and number == begun:
                continue  # the number ended before it
            went_on += p
            self._give(index, choice, number, ended, p, whole)
        return went_on

    def _give(self, index: int, choice: Alternative, number: str, ended: bool, p: float, whole: set[str]) -> None:
        place = self._place(number)
        longer = [] if ended else [k for k, label in enumerate(self._grid.labels) if k != place and self._begins(label, number)]
        if not longer:
            if place is not None:
                self.found[place] += p
        elif self._is_written(index, choice, number):
            went_on = self.read(index + 1, 0, number, p)
            if place is not None:
                self.found[place] += max(0.0, p - went_on)
        elif place is None and len(longer) == 1:
            self.found[longer[0]] += p
        elif place is not None and whole & {self._grid.labels[k] for k in longer}:
            self.found[place] += p
        else:
            self._undecided(p, longer if place is None else [place, *longer])

    def _undecided(self, p: float, places: Sequence[int]) -> None:
        values = [self._grid.values[place] for place in places]
        if max(values) - min(values) <= _NEAR * (self._grid.highest - self._grid.lowest):
            self.found[places[0]] += p
        else:
            self.moved += p * (max(values) - min(values))

    def _is_written(self, index: int, choice: Alternative, number: str) -> bool:
        """Whether the continuation is told: of what was written, by the token behind it."""
        return choice.text == self._tokens[index].text and self._written.startswith(number) and index + 1 < len(self._tokens)

    def _begins(self, label: str, number: str) -> bool:
        return bool(number) and label.startswith(number) and label != number

    def _number(self, text: str, offset: int | None, begun: str) -> tuple[str, bool]:
        """(the number so far, whether it ends inside this token); without a number what was begun."""
        if offset is not None:
            text = bytes_of(text)[offset:].decode("utf-8", "replace")
        text = plain_number(text.replace("\u2581", " ").replace("\u0120", " "))
        if not begun and self._words and (word := re.search(r"[a-z]+", text.lower())) and word[0] in NUMBER_WORDS:
            return str(NUMBER_WORDS[word[0]]), True
        match = _NUMBER.match(text)
        assert match is not None
        if begun and match["before"]:
            return begun, True
        number = begun + match["number"]
        point = number.endswith(".") and not any(label.startswith(number) for label in self._grid.labels)
        return number.rstrip(".") if point else number, bool(match["after"]) or point

    def _place(self, number: str) -> int | None:
        try:
            return self._grid.index(float(number))
        except ValueError:
            return None


def _probability(logprob: float) -> float:
    if logprob is None or math.isnan(logprob) or logprob > 0.01:
        raise ValueError(f"{logprob} is no log-probability")
    return math.exp(min(logprob, 0.0))


def tokens_of(content: object) -> tuple[Token, ...] | None:
    """The tokens of ``logprobs.content`` in an answer; None where the server tells none, or something else."""
    if not isinstance(content, Sequence) or isinstance(content, str) or not content:
        return None
    found = tuple(_tokens(content))
    return found if len(found) == len(content) else None


def _tokens(content: Sequence[object]) -> Iterator[Token]:
    for each in content:
        if not isinstance(each, Mapping) or not isinstance(each.get("token"), str):
            return
        others = each.get("top_logprobs")
        alternatives = tuple(_alternatives(others if isinstance(others, Sequence) else ()))
        yield Token(each["token"], _number_or_nan(each.get("logprob")), _data(each.get("bytes")), alternatives)


def _alternatives(others: Sequence[object]) -> Iterator[Alternative]:
    for other in others:
        if isinstance(other, Mapping) and isinstance(other.get("token"), str) and other.get("logprob") is not None:
            data = _data(other.get("bytes"))
            text = other["token"]
            yield Alternative(
                data.decode() if data is not None and _decodes(data) and "\ufffd" in text else text, _number_or_nan(other["logprob"])
            )


def _decodes(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _number_or_nan(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _data(value: object) -> bytes | None:
    if isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(each, int) and 0 <= each < 256 for each in value):
        return bytes(value) if value else None
    return None
