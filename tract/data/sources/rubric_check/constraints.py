"""The kinds of constraints: how a text is checked, what it shows of one, and how a response is steered to meet or break one. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from tract.data.sources.rubric_check import texts
from tract.data.sources.rubric_check.writer import ASIDE_WORDS, LONGEST_CORE_WORDS, PHRASE_WORDS, TAIL_WORDS, ResponsePlan

# A text that is too long or too short differs from the limit by more than this, so that the verdict is no matter of one word.
LENGTH_MARGIN = 2

Check = Callable[[str, str], bool]
Steer = Callable[[ResponsePlan, str, bool, Random], None]
Evidence = Callable[[str, str], str]

_COLOUR = re.compile(rf"\b({'|'.join(texts.COLOURS)})\b", re.IGNORECASE)
_QUOTATION = re.compile(r'"[^"]+"|“[^”]+”')
_SENTENCE_END = re.compile(r"[.!?]+[\"')]*(?=\s|$)")
_SENTENCE_COUNTS = {"one sentence": 1, "two sentences": 2}


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of constraint.

    Attributes:
        name: its key in ``texts.WORDINGS``.
        check: (text, value) -> whether the text meets it.
        steer: (plan, value, met, rng) -> None; changes the plan so that the text meets or breaks it.
        evidence: (text, value) -> what the text shows of it, quoted from the text: a small model copies this more easily than it judges.
            Whether texts are lower case shows in the first word: the writer's own texts begin with a capital or hold none.
        values: the parameters to draw from, as they are written in the task; ("",) if there is none.
        words: most words that a response needs so that this kind is met or broken.
        family: kinds of one family contradict each other; a task holds at most one of them.
        held_out: whether it is kept for out-of-distribution tests.
    """

    name: str
    check: Check
    steer: Steer
    evidence: Evidence
    values: tuple[str, ...] = ("",)
    words: int = 0
    family: str = ""
    held_out: bool = False


@dataclass(frozen=True, slots=True)
class Constraint:
    """A kind with its value, e.g. contains_word with "lamp"."""

    kind: Kind
    value: str

    def describe(self, rng: Random) -> str:
        """The constraint in words that can follow "the text must", drawn from several paraphrases."""
        return self._word(texts.WORDINGS[self.kind.name].requirements, rng)

    def heading(self, rng: Random) -> str:
        """The constraint as a short noun phrase, drawn from several paraphrases."""
        return self._word(texts.WORDINGS[self.kind.name].headings, rng)

    def finding(self, met: bool, rng: Random) -> str:
        """What a reader finds who judges the constraint as met or not, drawn from several paraphrases."""
        wording = texts.WORDINGS[self.kind.name]
        return self._word(wording.met if met else wording.unmet, rng)

    def check(self, text: str) -> bool:
        """Whether the text meets the constraint, whoever wrote it."""
        return self.kind.check(text, self.value)

    def evidence(self, text: str) -> str:
        """What the text shows of the constraint, as a clause without its full stop, e.g. 'The last mark is "?"'."""
        return self.kind.evidence(text, self.value)

    def steer(self, plan: ResponsePlan, met: bool, rng: Random) -> None:
        """Changes ``plan`` so that the text written from it meets the constraint, or breaks it."""
        self.kind.steer(plan, self.value, met, rng)

    def _word(self, wordings: tuple[str, ...], rng: Random) -> str:
        return rng.choice(wordings).format(v=self.value)


def fit_together(constraints: list[Constraint]) -> bool:
    """Whether every subset can be met while the others are broken, in a text as short as the limits on length may ask for."""
    limits = [int(constraint.value) for constraint in constraints if constraint.kind.family == "length"]
    needed = LONGEST_CORE_WORDS + sum(constraint.kind.words for constraint in constraints)
    words = [constraint.value for constraint in constraints if constraint.kind.family == "" and constraint.value]
    return len(set(words)) == len(words) and all(needed < limit - LENGTH_MARGIN for limit in limits)


def _contains_word(text: str, value: str) -> bool:
    return re.search(rf"\b{re.escape(value)}\b", text, re.IGNORECASE) is not None


def _begins_with(text: str, value: str) -> bool:
    return re.match(rf"\W*{re.escape(value)}\b", text, re.IGNORECASE) is not None


def _steer_word(plan: ResponsePlan, value: str, met: bool, rng: Random) -> None:
    if met:
        plan.nouns.append(value)
    else:
        plan.barred.add(value)


def _steer_opener(plan: ResponsePlan, value: str, met: bool, rng: Random) -> None:
    if met:
        plan.opener = value
    else:
        plan.barred.add(value)


def _steer_length(plan: ResponsePlan, limit: int, short: bool) -> None:
    plan.length = (plan.length[0], limit - LENGTH_MARGIN - 1) if short else (limit + LENGTH_MARGIN + 1, limit + LENGTH_MARGIN + 6)


def _steer_ending(mark: str) -> Steer:
    def steer(plan: ResponsePlan, value: str, met: bool, rng: Random) -> None:
        plan.ending = mark if met else rng.choice([other for other in "?!." if other != mark])

    return steer


def _steer_feature(name: str, when_met: bool = True) -> Steer:
    def steer(plan: ResponsePlan, value: str, met: bool, rng: Random) -> None:
        setattr(plan, name, met == when_met)

    return steer


def _steer_sentences(plan: ResponsePlan, value: str, met: bool, rng: Random) -> None:
    count = _SENTENCE_COUNTS[value]
    plan.sentences = count if met else 3 - count


def _word_count(text: str, value: str) -> str:
    return f"The number of words is {len(text.split())}"


def _last_mark(text: str, value: str) -> str:
    return f'The last mark is "{text.rstrip()[-1:]}"'


def _first_word(text: str, value: str) -> str:
    word = re.search(r"\w+", text)
    return f'The first word is "{word[0]}"' if word else "There is no word"


def _number(text: str, value: str) -> str:
    found = re.search(r"\d+", text)
    return f"The number is {found[0]}" if found else "There is no number"


def _comma(text: str, value: str) -> str:
    return "There is a comma" if "," in text else "There is no comma"


def _sought_word(text: str, value: str) -> str:
    return f'The word "{value}" is {"there" if _contains_word(text, value) else "not there"}'


def _colour(text: str, value: str) -> str:
    found = _COLOUR.search(text)
    return f"The colour is {found[0].lower()}" if found else "There is no colour"


def _quotation(text: str, value: str) -> str:
    found = _QUOTATION.search(text)
    return f"The quotation is {found[0]}" if found else "There is no quotation"


def _sentence_count(text: str, value: str) -> str:
    return f"The number of sentences is {len(_SENTENCE_END.findall(text))}"


_LIMITS = ("16", "17", "18", "19", "20")

KINDS: tuple[Kind, ...] = (
    Kind("contains_word", _contains_word, _steer_word, _sought_word, values=tuple(texts.NOUNS), words=PHRASE_WORDS),
    Kind(
        "max_words",
        lambda text, value: len(text.split()) <= int(value),
        lambda plan, value, met, rng: _steer_length(plan, int(value), short=met),
        _word_count,
        values=_LIMITS,
        family="length",
    ),
    Kind(
        "min_words",
        lambda text, value: len(text.split()) >= int(value),
        lambda plan, value, met, rng: _steer_length(plan, int(value), short=not met),
        _word_count,
        values=_LIMITS,
        family="length",
    ),
    Kind("ends_question", lambda text, value: text.rstrip().endswith("?"), _steer_ending("?"), _last_mark, words=1, family="ending"),
    Kind("ends_exclamation", lambda text, value: text.rstrip().endswith("!"), _steer_ending("!"), _last_mark, words=1, family="ending"),
    Kind("has_number", lambda text, value: any(c.isdigit() for c in text), _steer_feature("number"), _number, words=PHRASE_WORDS),
    Kind("lower_case", lambda text, value: not any(c.isupper() for c in text), _steer_feature("lower"), _first_word),
    Kind("begins_with", _begins_with, _steer_opener, _first_word, values=texts.OPENERS, words=1),
    Kind("no_comma", lambda text, value: "," not in text, _steer_feature("comma", when_met=False), _comma, words=ASIDE_WORDS),
    Kind(
        "mentions_colour",
        lambda text, value: _COLOUR.search(text) is not None,
        _steer_feature("colour"),
        _colour,
        words=PHRASE_WORDS,
        held_out=True,
    ),
    Kind(
        "quoted_phrase",
        lambda text, value: _QUOTATION.search(text) is not None,
        _steer_feature("quote"),
        _quotation,
        words=PHRASE_WORDS,
        held_out=True,
    ),
    Kind(
        "sentence_count",
        lambda text, value: len(_SENTENCE_END.findall(text)) == _SENTENCE_COUNTS[value],
        _steer_sentences,
        _sentence_count,
        values=tuple(_SENTENCE_COUNTS),
        words=TAIL_WORDS,
        held_out=True,
    ),
    Kind(
        "avoids_word",
        lambda text, value: not _contains_word(text, value),
        lambda plan, value, met, rng: _steer_word(plan, value, not met, rng),
        _sought_word,
        values=tuple(texts.NOUNS),
        words=PHRASE_WORDS,
        held_out=True,
    ),
)
IN_DOMAIN: tuple[Kind, ...] = tuple(kind for kind in KINDS if not kind.held_out)
HELD_OUT: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind.held_out)


def most_together(pool: Sequence[Kind]) -> int:
    """The most constraints of these in-domain kinds that one task can hold; all of them leave the words that they need."""
    return len({kind.family or kind.name for kind in pool})


def draw_constraints(pool: Sequence[Kind], count: int, n_held_out: int, rng: Random) -> tuple[Constraint, ...]:
    """Constraints that fit together, in random order.

    Args:
        pool: the in-domain kinds to draw from.
        count: how many, at most ``most_together(pool)``.
        n_held_out: how many of them are of held-out kinds.
        rng: where all draws come from.
    """
    while True:
        kinds = rng.sample(HELD_OUT, n_held_out)
        for kind in rng.sample(pool, len(pool)):
            if len(kinds) < count and kind.family not in {other.family for other in kinds if other.family}:
                kinds.append(kind)
        constraints = [Constraint(kind, rng.choice(kind.values)) for kind in rng.sample(kinds, len(kinds))]
        if fit_together(constraints):
            return tuple(constraints)
