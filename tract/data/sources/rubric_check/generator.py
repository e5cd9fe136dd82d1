"""The source ``rubric_check``: questions, responses and annotations, each drawn from its own seeded stream."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import ClassVar

from tract.common.errors import ConfigError
from tract.data.readers.rows import RawRow
from tract.data.sources.rubric_check import phrasing, texts
from tract.data.sources.rubric_check.constraints import IN_DOMAIN, Constraint, Kind, draw_constraints, most_together
from tract.data.sources.rubric_check.facts import META_KEY, respond, to_meta
from tract.text.schema import Annotation, JudgeExample, Rubric
from tract.text.score_grid import ScoreGrid

GENERATOR_VERSION = 2
"""Raised with every change that changes what is generated, so that caches are rebuilt."""

MOST_CONSTRAINTS = 7
"""Nine in-domain kinds, of which two limit the length and two the ending: seven fit together."""


@dataclass(frozen=True, slots=True)
class Task:
    """One question.

    Attributes:
        id: the question id.
        ood: whether held-out kinds are among the constraints.
        actions: what the responses tell of (see ``texts.TOPICS``).
        constraints: what is asked for. requirements: the same, as the instruction words it.
        instruction, rubric: what the judge reads.
        reference_answer: a text that meets all constraints.
    """

    id: str
    ood: bool
    actions: tuple[str, ...]
    constraints: tuple[Constraint, ...]
    requirements: tuple[str, ...]
    instruction: str
    rubric: Rubric
    reference_answer: str


@dataclass(frozen=True)
class RubricCheck:
    """Judge tasks whose score is a computed fact: 1 + how many of the task's constraints a short text meets.

    A question does not depend on the number of questions, responses or annotations, nor on the noise.

    Attributes:
        n_questions: in-domain questions; their split is left to the seeded split.
        responses_per_question: responses to each question.
        n_ood_questions: questions with held-out kinds of constraints, all in split "ood", free of noise.
        annotations_per_response: differently worded CoTs of each response, each with its own noise.
        n_constraints: constraints of a task; the score grid is 1..n_constraints + 1.
        cot_noise: probability that a verdict of an annotated CoT is flipped, independently for each constraint.
        score_noise: probability that an annotated score is replaced by a neighbour on the grid.
        seed: of everything that is drawn.
        kinds: names of the in-domain kinds that tasks are made of, for an easier task; None for all of them.
        wording: "varied": every text is drawn from several paraphrases; "plain": the first of them each time, and CoTs that quote
            what they judge by and keep count, all of one response alike.

    Raises:
        ConfigError: if a value is out of range.
    """

    instructions_hold_rubric: ClassVar[bool] = True

    n_questions: int
    responses_per_question: int
    n_ood_questions: int
    annotations_per_response: int
    n_constraints: int
    cot_noise: float
    score_noise: float
    seed: int
    kinds: Sequence[str] | None
    wording: str

    def __post_init__(self) -> None:
        problems = []
        for name, least in (("n_questions", 1), ("responses_per_question", 1), ("n_ood_questions", 0), ("annotations_per_response", 1)):
            if getattr(self, name) < least:
                problems.append(f"data.source.{name}: {getattr(self, name)} is below {least}")
        if not 2 <= self.n_constraints <= MOST_CONSTRAINTS:
            problems.append(f"data.source.n_constraints: {self.n_constraints} is outside [2, {MOST_CONSTRAINTS}]")
        problems += self._kind_problems()
        if self.wording not in phrasing.WORDING_CHOICES:
            problems.append(f"data.source.wording: {self.wording!r} is not one of {', '.join(phrasing.WORDING_CHOICES)}")
        for name in ("cot_noise", "score_noise"):
            if not 0 <= getattr(self, name) <= 1:
                problems.append(f"data.source.{name}: {getattr(self, name)} is outside [0, 1]")
        if problems:
            raise ConfigError("; ".join(problems))

    def _kind_problems(self) -> list[str]:
        """What is wrong with ``kinds``: names, or that they give no task of so many constraints."""
        if self.kinds is None:
            return []
        accepted = [kind.name for kind in IN_DOMAIN]
        wrong = [name for k, name in enumerate(self.kinds) if name not in accepted or name in self.kinds[:k]]
        if wrong or not self.kinds:
            found = f"{wrong} unknown or named twice" if wrong else "no kind"
            return [f"data.source.kinds: {found}; name some of {', '.join(accepted)}, each once, or null for all"]
        if (most := most_together(self._pool)) < self.n_constraints <= MOST_CONSTRAINTS:
            return [
                f"data.source.kinds: of {', '.join(self.kinds)} only {most} can stand together (of max_words and min_words one, of "
                f"ends_question and ends_exclamation one); name more kinds or lower data.source.n_constraints = {self.n_constraints}"
            ]
        return []

    @property
    def _pool(self) -> tuple[Kind, ...]:
        return tuple(kind for kind in IN_DOMAIN if self.kinds is None or kind.name in self.kinds)

    def fingerprint(self) -> str:
        """Hex sha256 of all that decides what is generated."""
        arguments = asdict(self) | {"cot_noise": float(self.cot_noise), "score_noise": float(self.score_noise)}
        content = {"source": "rubric_check", "version": GENERATOR_VERSION, "arguments": arguments}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def describe(self) -> str:
        """One line for logs."""
        return (
            f"rubric_check (seed {self.seed}): {self.n_questions} in-domain and {self.n_ood_questions} ood questions x "
            f"{self.responses_per_question} responses x {self.annotations_per_response} annotations, {self.n_constraints} constraints "
            f"of {'all kinds' if self.kinds is None else ', '.join(self.kinds)}, {self.wording} wording, "
            f"cot_noise {self.cot_noise:g}, score_noise {self.score_noise:g}"
        )

    def rows(self) -> Iterator[RawRow]:
        """All examples, in-domain ones first, as rows whose place is their id."""
        for example in self.examples():
            yield RawRow(place=example.id, data=example)

    def to_example(self, row: RawRow, grid: ScoreGrid) -> JudgeExample:
        """The example that the row holds.

        Raises:
            ConfigError: if the grid is not 1..n_constraints + 1.
        """
        if grid.labels != tuple(str(score) for score in range(1, self.n_constraints + 2)):
            raise ConfigError(
                f"grid.labels: {list(grid.labels)} does not go with data.source.n_constraints = {self.n_constraints}: the score is 1 + the "
                f"number of met constraints; make the labels '1' to '{self.n_constraints + 1}', or set n_constraints to match"
            )
        assert isinstance(row.data, JudgeExample)
        return row.data

    def examples(self) -> Iterator[JudgeExample]:
        """All examples, in-domain ones first; nothing is kept."""
        for ood, n_questions in ((False, self.n_questions), (True, self.n_ood_questions)):
            for question in range(n_questions):
                task = self.task(question, ood=ood)
                for response in range(self.responses_per_question):
                    yield self.example(task, response)

    def task(self, question: int, *, ood: bool = False) -> Task:
        """The question of this number, among the in-domain or the ood ones."""
        task_id = f"rubric_check-{self.seed}-{'ood-' if ood else ''}q{question}"
        rng = Random(task_id)
        wording = phrasing.wording_draws(self.wording, rng)
        # A single in-domain constraint is left where there are two in all.
        n_held_out = min(2, self.n_constraints - 1) if ood else 0
        constraints = draw_constraints(self._pool, self.n_constraints, n_held_out, rng)
        requirements = tuple(constraint.describe(wording) for constraint in constraints)
        topic, actions = rng.choice(texts.TOPICS)
        return Task(
            id=task_id,
            ood=ood,
            actions=actions,
            constraints=constraints,
            requirements=requirements,
            instruction=phrasing.instruction(topic, requirements, wording),
            rubric=phrasing.rubric(self.n_constraints, wording),
            reference_answer=respond(constraints, (True,) * self.n_constraints, actions, rng),
        )

    def example(self, task: Task, response: int) -> JudgeExample:
        """The response of this number to a question, with its annotations."""
        example_id = f"{task.id}-r{response}"
        rng = Random(example_id)
        # The count first, then which: so all scores are equally frequent.
        met = set(rng.sample(range(self.n_constraints), rng.randint(0, self.n_constraints)))
        wanted = tuple(i in met for i in range(self.n_constraints))
        text = respond(task.constraints, wanted, task.actions, rng)
        style = rng.randrange(len(texts.VERDICT_LINES))
        annotations = tuple(self._annotation(task, example_id, text, wanted, i, style + i) for i in range(self.annotations_per_response))
        score = 1 + len(met)
        return JudgeExample(
            id=example_id,
            question_id=task.id,
            instruction=task.instruction,
            response=text,
            reference_answer=task.reference_answer,
            rubric=task.rubric,
            annotations=annotations,
            target_score=float(score) if task.ood else None,
            split="ood" if task.ood else None,
            meta={
                "true_score": str(score),
                "kinds": ",".join(constraint.kind.name for constraint in task.constraints),
                META_KEY: to_meta(task.constraints),
                "category": "ood" if task.ood else "in_domain",
            },
        )

    def _annotation(self, task: Task, example_id: str, text: str, facts: tuple[bool, ...], index: int, style: int) -> Annotation:
        """One CoT and score, with noise unless the task is ood."""
        cot_noise, score_noise = (0.0, 0.0) if task.ood else (self.cot_noise, self.score_noise)
        # The same draws are made at any noise, so two noise levels flip nested sets of verdicts.
        rng = Random(f"{example_id}-a{index}-noise")
        verdicts = tuple(fact != (rng.random() < cot_noise) for fact in facts)
        score = 1 + sum(facts)
        is_replaced = rng.random() < score_noise
        neighbour = rng.choice([other for other in (score - 1, score + 1) if 1 <= other <= self.n_constraints + 1])
        if self.wording == "plain":
            cot = phrasing.plain_chain_of_thought(task.constraints, text, verdicts)
        else:
            cot = phrasing.chain_of_thought(task.constraints, task.requirements, verdicts, style, Random(f"{example_id}-a{index}"))
        return Annotation(cot=cot, score=float(neighbour if is_replaced else score))
