"""Writes a response with given features: length, ending, first word, and so on; everything that is left free is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from tract.data.sources.rubric_check import texts

# Words that each part adds to a response; constraints.py counts with the same numbers, the tests check them against texts.py.
PHRASE_WORDS = 3
TAIL_WORDS = 3
ASIDE_WORDS = 2
LONGEST_CORE_WORDS = 5
FREE_LENGTH = (6, 28)

_SLOTS = ("outfit", "place", "spot", "company", "duration", "time", "reason", "speech")  # in the order of a sentence
_FIXED_PHRASES = {"place": texts.PLACES, "company": texts.COMPANY, "time": texts.TIMES, "reason": texts.REASONS}


@dataclass(slots=True)
class ResponsePlan:
    """What a response should be like; None leaves a feature free.

    Attributes:
        length: fewest and most words.
        ending: the last character: ".", "!" or "?".
        opener: the first word, from ``texts.OPENERS``.
        sentences: 1 or 2.
        lower: whether there are no capitals.
        comma, number, colour, quote: whether there is one.
        nouns: words that are used. barred: nouns and openers that are not.
    """

    length: tuple[int, int] = FREE_LENGTH
    ending: str | None = None
    opener: str | None = None
    sentences: int | None = None
    lower: bool | None = None
    comma: bool | None = None
    number: bool | None = None
    colour: bool | None = None
    quote: bool | None = None
    nouns: list[str] = field(default_factory=list)
    barred: set[str] = field(default_factory=set)


def write(plan: ResponsePlan, actions: tuple[str, ...], rng: Random) -> str:
    """A text of one or two sentences that follows the plan, as far as its length allows.

    Args:
        plan: what the text should be like.
        actions: what people do in this topic; one is drawn (see ``texts.TOPICS``).
        rng: where all draws come from.
    """
    core = f"{rng.choice(texts.SUBJECTS)} {rng.choice(actions)}"
    slots = ["spot"] * len(plan.nouns)
    slots += [slot for slot, wanted in (("outfit", plan.colour), ("duration", plan.number), ("speech", plan.quote)) if wanted]
    room = plan.length[1] - len(core.split()) - PHRASE_WORDS * len(slots)
    ending, opener, sentences, comma, room = _settle(plan, room, rng)

    # Phrases are added to reach a drawn length; each slot serves once, whether it was asked for or not.
    spare = [slot for slot in _SLOTS if slot not in slots]
    most = min(room // PHRASE_WORDS, len(spare))
    missing = plan.length[0] - (plan.length[1] - room)
    fewest = min(max(math.ceil(missing / PHRASE_WORDS), 0), most)
    slots += rng.sample(spare, rng.randint(fewest, most))
    nouns = iter(plan.nouns)
    phrases = [_phrase(slot, plan, nouns, rng) for slot in sorted(slots, key=_SLOTS.index)]

    cut = rng.randint(0, len(phrases)) if sentences == 2 else len(phrases)
    first = _sentence(" ".join([core, *phrases[:cut]]), "." if sentences == 2 else ending, opener, comma, rng)
    second = _sentence(" ".join([rng.choice(texts.TAILS), *phrases[cut:]]), ending, "", False, rng) if sentences == 2 else ""
    text = f"{first} {second}".strip()
    lower = plan.lower if plan.lower is not None else rng.random() < 0.2
    return text.lower() if lower else text


def _settle(plan: ResponsePlan, room: int, rng: Random) -> tuple[str, str, int, bool, int]:
    """Draws the free features that cost words, within ``room`` words: ending, opener, sentences, comma, and the room left."""
    room -= plan.opener is not None
    room -= plan.ending == "?"
    room -= TAIL_WORDS * (plan.sentences == 2)
    room -= ASIDE_WORDS * bool(plan.comma and plan.opener is None)
    ending = plan.ending
    if ending is None:
        ending = rng.choice(("?", "!", ".", ".") if room > 0 else ("!", "."))
        room -= ending == "?"
    sentences = plan.sentences
    if sentences is None:
        sentences = rng.choice((1, 2)) if room >= TAIL_WORDS else 1
        room -= TAIL_WORDS * (sentences == 2)
    opener = plan.opener
    if opener is None:
        free = [word for word in texts.OPENERS if word not in plan.barred]
        opener = rng.choice(free) if room > 0 and rng.random() < 0.4 else ""
        # A required comma comes after the opener, which saves the words of the aside.
        room += ASIDE_WORDS * bool(plan.comma and opener) - bool(opener)
    comma = plan.comma
    if comma is None:
        comma = rng.random() < 0.4 and (bool(opener) or room >= ASIDE_WORDS)
        room -= ASIDE_WORDS * (comma and not opener)
    return ending, opener, sentences, comma, room


def _phrase(slot: str, plan: ResponsePlan, nouns: Iterator[str], rng: Random) -> str:
    """Three words that can follow any sentence of the vocabulary."""
    drawn = rng.random() < 0.5
    if slot == "outfit":
        colour = drawn if plan.colour is None else plan.colour
        return f"in {rng.choice(texts.COLOURS if colour else texts.LOOKS)} {rng.choice(texts.GARMENTS)}"
    if slot == "spot":
        free = [noun for noun in texts.NOUNS if noun not in plan.barred]
        return f"{rng.choice(texts.NEAR)} {next(nouns, None) or rng.choice(free)}"
    if slot == "duration":
        number = drawn if plan.number is None else plan.number
        return f"for {rng.randint(2, 50) if number else rng.choice(texts.VAGUE_AMOUNTS)} {rng.choice(texts.UNITS)}"
    if slot == "speech":
        mark = '"' if (drawn if plan.quote is None else plan.quote) else ""
        return f"{rng.choice(texts.SPEECH_VERBS)} {mark}{rng.choice(texts.SPEECH_PHRASES)}{mark}"
    return rng.choice(_FIXED_PHRASES[slot])


def _sentence(body: str, ending: str, opener: str, comma: bool, rng: Random) -> str:
    if ending == "?":
        body = f"do {body}"
    if opener:
        body = f"{opener}{',' if comma else ''} {body}"
    elif comma:
        body += f", {rng.choice(texts.QUESTION_ASIDES if ending == '?' else texts.STATEMENT_ASIDES)}"
    return body[0].upper() + body[1:] + ending
