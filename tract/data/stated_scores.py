"""The CoTs of an example without the statements of their scores, checked against the scores that the row gives. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from tract.data.readers.fields import shown
from tract.text.cot_extraction import extract_cot
from tract.text.schema import Annotation, JudgeExample
from tract.text.score_statement import mentions_score, number_of

CONTRADICTION = "score contradiction"  # the category of rejected rows whose feedback states another score
# In counts, beside the forms of ``score_statement``: feedback after the statement was dropped; a score that is only mentioned was kept.
WITH_MORE, IN_PASSING = "feedback after it dropped", "kept in passing"


def without_scores(example: JudgeExample, cue: str) -> JudgeExample:
    """The example whose annotations hold the CoT alone; ``Annotation.stated`` says how each text stated its score.

    Args:
        example: as a source gives it. cue: the answer cue that judges are trained on.

    Raises:
        ValueError: if a text states another score than the row has, or nothing else.
    """
    if not any(annotation.cot for annotation in example.annotations):
        return example
    return replace(example, annotations=tuple(_without_score(annotation, cue) for annotation in example.annotations))


def _without_score(annotation: Annotation, cue: str) -> Annotation:
    if not annotation.cot:
        return annotation
    taken = extract_cot(annotation.cot, cue, {annotation.score})
    for written in taken.numbers:
        if number_of(written) != annotation.score:
            raise ValueError(
                f"{CONTRADICTION}: the feedback ends in the score {shown(written)}, the row has {annotation.score:g} "
                f"({shown(annotation.cot[-50:])}); correct one of them"
            )
    if not taken.cot.strip():
        raise ValueError(f"feedback: found {shown(annotation.cot)}, which states the score alone; feedback before it is accepted")
    return replace(annotation, cot=taken.cot, stated=f"{taken.form}, {WITH_MORE}" if taken.has_more else taken.form)


def how_stated(example: JudgeExample) -> Counter[str]:
    """How the texts of an example's annotations stated their scores, and what was done -> annotations; a text may count twice."""
    looked_at = [annotation for annotation in example.annotations if annotation.stated is not None]
    mentioned = sum(mentions_score(annotation.cot) for annotation in looked_at)
    return Counter(annotation.stated for annotation in looked_at if annotation.stated) + Counter({IN_PASSING: mentioned})
