"""Tests of the offline generator ``rubric_check``: checks, labels, CoTs, noise, determinism and the held-out kinds."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from tract.common.errors import ConfigError
from tract.data.readers.rows import RawRow
from tract.data.sources.rubric_check import KINDS, texts, writer
from tract.data.sources.rubric_check.constraints import HELD_OUT, IN_DOMAIN, Constraint, fit_together
from tract.data.sources.rubric_check.facts import respond
from tract.data.sources.rubric_check.generator import MOST_CONSTRAINTS, RubricCheck, Task
from tract.text.schema import JudgeExample
from tract.text.score_grid import ScoreGrid

GRID = ScoreGrid(("1", "2", "3", "4", "5"))
KIND = {kind.name: kind for kind in KINDS}
BASE = RubricCheck(
    n_questions=400,
    responses_per_question=5,
    n_ood_questions=80,
    annotations_per_response=1,
    n_constraints=4,
    cot_noise=0.0,
    score_noise=0.0,
    seed=3,
    kinds=None,
    wording="varied",
)

# kind, value, texts that meet it, texts that do not
CHECKS = [
    ("contains_word", "lamp", ["A lamp.", "Lamp on!", 'near "lamp", now'], ["Two lamps.", "A clamp.", ""]),
    ("max_words", "3", ["One two three.", "One."], ["One two three four.", "a, b, c, d"]),
    ("min_words", "3", ["One two three.", "a b c d"], ["One two.", ""]),
    ("ends_question", "", ["Why?", "Why not? "], ["Why? No.", "Why!", "Why?!"]),
    ("ends_exclamation", "", ["Yes!", "Why? Yes! "], ["Yes.", "Yes! Why?"]),
    ("has_number", "", ["for 3 days", "2024"], ["for three days", ""]),
    ("lower_case", "", ["all small, 3 times."], ["Not small.", "not smalL."]),
    ("begins_with", "so", ["So it goes.", "so, yes", '"So" it is'], ["Some go.", "It is so.", ""]),
    ("no_comma", "", ["No pause."], ["One, pause.", ","]),
    ("mentions_colour", "", ["A red hat.", "Blue, mostly."], ["A hundred hats.", "They blacken it."]),
    ("quoted_phrase", "", ['Say "hello there".', "Say “hello”."], ["Say hello.", 'A lone " mark.', "the word 'lamp'"]),
    ("sentence_count", "one sentence", ["One.", 'Say "hi."', "For 2.5 days."], ["One. Two.", "One? Two!", "none"]),
    ("sentence_count", "two sentences", ["One. Two?", "One?! Two..."], ["One.", "One. Two. Three."]),
    ("avoids_word", "lamp", ["Two lamps.", ""], ["A lamp.", "LAMP!"]),
]


@pytest.fixture(scope="module")
def examples() -> list[JudgeExample]:
    return list(BASE.examples())


def task_of(example: JudgeExample, source: RubricCheck = BASE) -> Task:
    question = int(re.fullmatch(r".*-q(\d+)", example.question_id).group(1))
    return source.task(question, ood=example.split == "ood")


def verdicts_in(cot: str) -> list[bool]:
    return [verdict == "met" for verdict in re.findall(r", (met|not met)\.(?= )", cot)]


def count_in(cot: str) -> tuple[int, int]:
    count, total = re.search(r"(\d) of (\d) constraints (?:is |are )?met\.$", cot).groups()
    return int(count), int(total)


def test_every_kind_is_in_the_table() -> None:
    assert {row[0] for row in CHECKS} == set(KIND) == set(texts.WORDINGS)


@pytest.mark.parametrize(("name", "value", "good", "bad"), CHECKS)
def test_check(name: str, value: str, good: list[str], bad: list[str]) -> None:
    constraint = Constraint(KIND[name], value)
    assert [constraint.check(text) for text in good] == [True] * len(good)
    assert [constraint.check(text) for text in bad] == [False] * len(bad)


def test_labels_agree_with_the_checks(examples: list[JudgeExample]) -> None:
    assert len(examples) == 2400
    for example in examples:
        task = task_of(example)
        score = 1 + sum(constraint.check(example.response) for constraint in task.constraints)
        assert example.meta["true_score"] == str(score)
        assert [annotation.score for annotation in example.annotations] == [score]
        assert example.target == score
        assert all(constraint.check(example.reference_answer) for constraint in task.constraints)
        assert example.meta["kinds"] == ",".join(constraint.kind.name for constraint in task.constraints)
        assert (example.instruction, example.rubric) == (task.instruction, task.rubric)


def test_the_instruction_states_every_constraint(examples: list[JudgeExample]) -> None:
    for example in examples:
        task = task_of(example)
        places = [example.instruction.index(requirement) for requirement in task.requirements]
        assert places == sorted(places)
        assert all(constraint.value in requirement for constraint, requirement in zip(task.constraints, task.requirements, strict=True))


def test_the_rubric_describes_every_score(examples: list[JudgeExample]) -> None:
    for example in examples[::50]:
        lines = dict(example.rubric.descriptions)
        assert list(lines) == ["1", "2", "3", "4", "5"]
        assert all(word in lines[label].lower() for label, word in (("2", "one"), ("3", "two"), ("4", "three")))
        assert re.search(r"\b(no|none)\b", lines["1"].lower())
        assert re.search(r"\b(all|every)\b", lines["5"].lower())


@pytest.mark.parametrize("n_constraints", [2, 4, MOST_CONSTRAINTS])
@pytest.mark.parametrize("ood", [False, True])
def test_every_subset_can_be_written(n_constraints: int, ood: bool) -> None:
    source = replace(BASE, n_constraints=n_constraints)
    for question in range(20):
        task = source.task(question, ood=ood)
        for wanted in itertools.product([False, True], repeat=n_constraints):
            text = respond(task.constraints, wanted, task.actions, Random(question))
            assert tuple(constraint.check(text) for constraint in task.constraints) == wanted


def test_constraints_that_exclude_each_other_are_refused() -> None:
    both = (Constraint(KIND["ends_question"], ""), Constraint(KIND["ends_exclamation"], ""))
    with pytest.raises(AssertionError, match="do not fit together"):
        respond(both, (True, True), ("bake bread",), Random(0))


def test_constraints_fit_together_only_if_every_subset_can_be_met() -> None:
    lamp, no_lamp, no_drum = (
        Constraint(KIND[name], word) for name, word in (("contains_word", "lamp"), ("avoids_word", "lamp"), ("avoids_word", "drum"))
    )
    assert fit_together([lamp, no_drum])
    assert not fit_together([lamp, no_lamp])
    # Five words of core and three phrases of three words: 14 words, so that a limit of 16 leaves no margin.
    wordy = [Constraint(KIND[name], "") for name in ("has_number", "quoted_phrase", "mentions_colour")]
    assert fit_together([*wordy, Constraint(KIND["max_words"], "17")])
    assert not fit_together([*wordy, Constraint(KIND["max_words"], "16")])


EASY = ["ends_question", "has_number", "lower_case", "no_comma"]


def test_tasks_are_made_of_the_named_kinds() -> None:
    source = replace(BASE, n_questions=40, n_ood_questions=20, kinds=EASY)
    held_out = {kind.name for kind in HELD_OUT}
    orders = set()
    for example in source.examples():
        kinds = example.meta["kinds"].split(",")
        if example.split is None:
            assert sorted(kinds) == EASY
            orders.add(tuple(kinds))
        else:
            assert len(set(kinds) & held_out) == len(set(kinds) & set(EASY)) == 2
        assert example.meta["true_score"] == str(1 + sum(c.check(example.response) for c in task_of(example, source).constraints))
    assert len(orders) > 10


def test_all_kinds_named_are_the_default() -> None:
    small = replace(BASE, n_questions=20, n_ood_questions=5)
    named = replace(small, kinds=[kind.name for kind in reversed(IN_DOMAIN)])
    assert list(named.examples()) == list(small.examples())


def test_plain_wording_is_one_wording() -> None:
    source = replace(BASE, n_questions=60, n_ood_questions=0, kinds=EASY, wording="plain")
    topics = "|".join(re.escape(topic) for topic, _ in texts.TOPICS)
    requirements = {"end with a question mark", "contain a number in digits", "be written in lower case only", "contain no commas"}
    rubrics = set()
    for example in source.examples():
        assert re.match(rf"Write a short text about ({topics})\. The text must:\n- ", example.instruction)
        assert set(example.instruction.split("\n- ")[1:]) == requirements
        rubrics.add(example.rubric)
    assert len(rubrics) == 1


def test_plain_cots_show_the_evidence_and_keep_count() -> None:
    source = replace(BASE, n_questions=60, n_ood_questions=20, wording="plain")
    for example in source.examples():
        constraints = task_of(example, source).constraints
        facts = [constraint.check(example.response) for constraint in constraints]
        cot = example.annotations[0].cot
        found = re.findall(r"((?:The|There) .*?), (met|not met)\. Met so far: (\d)\.(?: |$)", cot)
        assert [verdict == "met" for _, verdict, _ in found] == facts
        assert [int(count) for _, _, count in found] == list(itertools.accumulate(facts))
        assert [shown for shown, _, _ in found] == [constraint.evidence(example.response) for constraint in constraints]


def test_plain_cots_follow_noisy_verdicts() -> None:
    noisy = replace(BASE, n_questions=30, n_ood_questions=0, wording="plain", cot_noise=1.0)
    for example in noisy.examples():
        assert example.annotations[0].cot.endswith(f"Met so far: {5 - int(example.meta['true_score'])}.")


EVIDENCE = [
    ("contains_word", "lamp", "A Lamp!", 'The word "lamp" is there'),
    ("contains_word", "lamp", "A clamp.", 'The word "lamp" is not there'),
    ("max_words", "3", "One, two.", "The number of words is 2"),
    ("min_words", "3", "One two three four.", "The number of words is 4"),
    ("ends_question", "", "Why? ", 'The last mark is "?"'),
    ("ends_exclamation", "", "Yes.", 'The last mark is "."'),
    ("has_number", "", "For 42 or 7 days.", "The number is 42"),
    ("has_number", "", "For days.", "There is no number"),
    ("lower_case", "", "So, do they?", 'The first word is "So"'),
    ("begins_with", "so", "so, do they?", 'The first word is "so"'),
    ("begins_with", "so", "", "There is no word"),
    ("no_comma", "", "One, two.", "There is a comma"),
    ("no_comma", "", "One.", "There is no comma"),
    ("mentions_colour", "", "A Red hat.", "The colour is red"),
    ("mentions_colour", "", "A hat.", "There is no colour"),
    ("quoted_phrase", "", 'Say "hello there".', 'The quotation is "hello there"'),
    ("quoted_phrase", "", "Say hello.", "There is no quotation"),
    ("sentence_count", "two sentences", "One?! Two...", "The number of sentences is 2"),
    ("avoids_word", "lamp", "A drum.", 'The word "lamp" is not there'),
]


@pytest.mark.parametrize(("name", "value", "text", "shown"), EVIDENCE)
def test_evidence(name: str, value: str, text: str, shown: str) -> None:
    assert Constraint(KIND[name], value).evidence(text) == shown


def test_every_kind_has_evidence() -> None:
    assert {row[0] for row in EVIDENCE} == set(KIND)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"kinds": ["no_comma", "nonsense"]},
            r"kinds: \['nonsense'\] unknown or named twice; name some of contains_word, .*no_comma, each once",
        ),
        ({"kinds": ["no_comma", "no_comma"]}, r"kinds: \['no_comma'\] unknown or named twice"),
        ({"kinds": ["quoted_phrase"]}, r"kinds: \['quoted_phrase'\] unknown or named twice"),
        ({"kinds": []}, r"kinds: no kind; name some of"),
        ({"kinds": EASY[:3]}, r"kinds: of ends_question, has_number, lower_case only 3 can stand together .*n_constraints = 4"),
        ({"kinds": [*EASY[:3], "ends_exclamation"]}, r"kinds: of .*, ends_exclamation only 3 can stand together"),
        ({"wording": "poetic"}, r"data\.source\.wording: 'poetic' is not one of varied, plain"),
    ],
)
def test_bad_kinds_and_wordings_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(BASE, **changes)


@pytest.mark.parametrize("n_constraints", [2, 4, MOST_CONSTRAINTS])
def test_any_kinds_that_can_stand_together_can_be_drawn(n_constraints: int) -> None:
    """Drawing ends: also with the wordiest kinds, a limit on the length and held-out kinds."""
    for names in itertools.combinations([kind.name for kind in IN_DOMAIN], n_constraints):
        families = {KIND[name].family or name for name in names}
        if len(families) == n_constraints:
            source = replace(BASE, kinds=names, n_constraints=n_constraints)
            assert {constraint.kind.name for constraint in source.task(0).constraints} == set(names)
            assert len(source.task(0, ood=True).constraints) == n_constraints


def test_scores_and_kinds_are_about_uniform(examples: list[JudgeExample]) -> None:
    inside = [example for example in examples if example.split is None]
    scores = Counter(example.meta["true_score"] for example in inside)
    assert set(scores) == {"1", "2", "3", "4", "5"}
    # 400 are expected of each of 5; five standard deviations are 90.
    assert all(abs(count - len(inside) / 5) < 90 for count in scores.values())
    subsets = {tuple(c.check(e.response) for c in task_of(e).constraints) for e in inside}
    assert len(subsets) == 16
    kinds = Counter(name for example in inside for name in example.meta["kinds"].split(","))
    assert set(kinds) == {kind.name for kind in IN_DOMAIN}
    assert min(kinds.values()) > 0.1 * len(inside)


def test_length_verdicts_are_no_close_calls(examples: list[JudgeExample]) -> None:
    for example in examples:
        for constraint in task_of(example).constraints:
            if constraint.kind.family == "length":
                assert abs(len(example.response.split()) - int(constraint.value)) > 2


def test_cots_agree_with_the_checks_and_keep_the_order(examples: list[JudgeExample]) -> None:
    for example in examples:
        task, cot = task_of(example), example.annotations[0].cot
        facts = [constraint.check(example.response) for constraint in task.constraints]
        assert verdicts_in(cot) == facts
        assert count_in(cot) == (sum(facts), 4)
        wordings = [texts.WORDINGS[constraint.kind.name] for constraint in task.constraints]
        parts = re.split(r", (?:met|not met)\. ", cot)[:-1]
        for part, fact, wording in zip(parts, facts, wordings, strict=True):
            assert part.endswith(wording.met if fact else wording.unmet)


def test_findings_tell_met_from_unmet() -> None:
    for wording in texts.WORDINGS.values():
        assert not set(wording.met) & set(wording.unmet)


def test_texts_are_short_and_free_of_the_cue(examples: list[JudgeExample]) -> None:
    for example in examples:
        user = example.instruction + example.response + example.rubric.criteria + "".join(line for _, line in example.rubric.descriptions)
        assert len(user) < 1000
        assert 6 <= len(example.response.split()) <= 28
        for annotation in example.annotations:
            assert len(annotation.cot) <= 350
            assert "overall score" not in annotation.cot
            assert "score is" not in annotation.cot


def test_wordings_vary(examples: list[JudgeExample]) -> None:
    assert len({example.instruction.split(" must")[0].replace(task_topic(example), "") for example in examples}) == len(texts.INSTRUCTIONS)
    assert len({example.rubric for example in examples}) == len(texts.CRITERIA) * len(texts.DESCRIPTIONS)
    assert len({example.response for example in examples}) > 0.95 * len(examples)


def task_topic(example: JudgeExample) -> str:
    actions = task_of(example).actions
    return next(topic for topic, its_actions in texts.TOPICS if its_actions == actions)


def test_annotations_of_one_response_are_worded_differently() -> None:
    for example in replace(BASE, n_questions=50, n_ood_questions=5, annotations_per_response=3).examples():
        assert len({annotation.cot for annotation in example.annotations}) == 3
        assert len({tuple(verdicts_in(annotation.cot)) for annotation in example.annotations}) == 1


def test_cot_noise_flips_verdicts_at_its_rate() -> None:
    noisy = replace(BASE, n_ood_questions=0, cot_noise=0.1)
    flips = total = 0
    for example in noisy.examples():
        facts = [constraint.check(example.response) for constraint in task_of(example).constraints]
        verdicts = verdicts_in(example.annotations[0].cot)
        assert count_in(example.annotations[0].cot)[0] == sum(verdicts)
        assert example.annotations[0].score == 1 + sum(facts)
        assert example.target_score is None
        flips += sum(fact != verdict for fact, verdict in zip(facts, verdicts, strict=True))
        total += len(facts)
    assert total == 8000
    assert 0.083 < flips / total < 0.117  # five standard deviations


def test_score_noise_moves_scores_to_neighbours_at_its_rate() -> None:
    noisy = list(replace(BASE, n_ood_questions=0, score_noise=0.2).examples())
    steps = Counter(example.annotations[0].score - int(example.meta["true_score"]) for example in noisy)
    assert set(steps) == {-1.0, 0.0, 1.0}
    assert 0.155 < 1 - steps[0.0] / len(noisy) < 0.245  # five standard deviations
    assert {example.annotations[0].score for example in noisy} == set(GRID.values)


@pytest.mark.parametrize(("cot_noise", "score_noise"), [(1.0, 0.0), (0.0, 1.0)])
def test_full_noise_changes_every_annotation(cot_noise: float, score_noise: float) -> None:
    for example in replace(BASE, n_questions=30, n_ood_questions=0, cot_noise=cot_noise, score_noise=score_noise).examples():
        true_count = int(example.meta["true_score"]) - 1
        assert count_in(example.annotations[0].cot)[0] == (4 - true_count if cot_noise else true_count)
        assert (example.annotations[0].score == 1 + true_count) == (not score_noise)


def test_annotations_of_one_response_have_their_own_noise() -> None:
    noisy = replace(BASE, n_questions=50, n_ood_questions=0, annotations_per_response=3, cot_noise=0.5)
    assert any(len({tuple(verdicts_in(a.cot)) for a in example.annotations}) == 3 for example in noisy.examples())


def test_noise_changes_annotations_only(examples: list[JudgeExample]) -> None:
    noisy = list(replace(BASE, cot_noise=0.5, score_noise=0.5).examples())
    assert [replace(example, annotations=()) for example in noisy] == [replace(example, annotations=()) for example in examples]
    outside = [(a, b) for a, b in zip(noisy, examples, strict=True) if a.split == "ood"]
    assert len(outside) == 400
    assert all(a == b for a, b in outside)
    inside = [(a, b) for a, b in zip(noisy, examples, strict=True) if a.split is None]
    assert sum(a.annotations != b.annotations for a, b in inside) > 0.9 * len(inside)


def test_examples_do_not_depend_on_the_size(examples: list[JudgeExample]) -> None:
    by_id = {example.id: example for example in examples}
    assert len(by_id) == len(examples)
    for example in replace(BASE, n_questions=7, responses_per_question=2, n_ood_questions=3).examples():
        assert by_id[example.id] == example
    for example in replace(BASE, n_questions=5, n_ood_questions=0, annotations_per_response=3).examples():
        assert by_id[example.id].annotations == example.annotations[:1]


def test_another_seed_gives_other_texts(examples: list[JudgeExample]) -> None:
    other = {example.response for example in replace(BASE, seed=4).examples()}
    assert len(other & {example.response for example in examples}) < 0.05 * len(examples)


def test_a_known_example_stays_the_same() -> None:
    """Fails when generated texts change: raise GENERATOR_VERSION then. Python's hash seed has no influence."""
    example = next(BASE.examples())
    assert example.id == "rubric_check-3-q0-r0"
    assert example.question_id == "rubric_check-3-q0"
    assert example.response == (
        "Most people pump up tyres behind the school beside a bench with good friends for many weeks on quiet mornings "
        'for their grandparents saying "well done".'
    )
    assert example.annotations[0].cot == (
        "It must begin with the word 'anyway': it starts differently, not met. It must give a number in digits: no "
        "number is given, not met. It must use the word 'guitar': it is missing, not met. It must contain no commas: "
        "commas are avoided, met. This makes 1 of 4 constraints met."
    )


def test_held_out_kinds_are_held_out(examples: list[JudgeExample]) -> None:
    held_out = {kind.name for kind in HELD_OUT}
    assert len(held_out) == 4
    assert len(IN_DOMAIN) == 9
    for example in examples:
        n_held_out = len(held_out & set(example.meta["kinds"].split(",")))
        if example.split is None:
            assert (n_held_out, example.meta["category"], example.target_score) == (0, "in_domain", None)
        else:
            assert (example.split, n_held_out, example.meta["category"]) == ("ood", 2, "ood")
            assert example.target_score == float(example.meta["true_score"])
            assert example.id.startswith("rubric_check-3-ood-q")


def test_vocabulary_holds_nothing_that_a_check_looks_for() -> None:
    phrases = [*texts.SUBJECTS, *texts.TAILS, *texts.OPENERS, *texts.STATEMENT_ASIDES, *texts.QUESTION_ASIDES, *texts.NEAR, *texts.LOOKS]
    phrases += [*texts.GARMENTS, *texts.UNITS, *texts.VAGUE_AMOUNTS, *texts.PLACES, *texts.COMPANY, *texts.TIMES, *texts.REASONS]
    phrases += [*texts.SPEECH_VERBS, *texts.SPEECH_PHRASES, *(action for _, actions in texts.TOPICS for action in actions)]
    for phrase in phrases:
        assert re.fullmatch(r"[a-z ]+", phrase)
        assert not set(phrase.split()) & {*texts.COLOURS, *texts.NOUNS}


def test_vocabulary_has_the_word_counts_that_the_writer_counts_with() -> None:
    words = lambda phrases: {len(phrase.split()) for phrase in phrases}  # noqa: E731
    assert words([*texts.PLACES, *texts.COMPANY, *texts.TIMES, *texts.REASONS]) == {writer.PHRASE_WORDS}
    assert words(texts.TAILS) == {writer.TAIL_WORDS}
    assert words([*texts.STATEMENT_ASIDES, *texts.QUESTION_ASIDES]) == {writer.ASIDE_WORDS}
    assert words(texts.SPEECH_PHRASES) | words(texts.NEAR) == {2}
    assert max(words(texts.SUBJECTS)) + max(words(a for _, actions in texts.TOPICS for a in actions)) == writer.LONGEST_CORE_WORDS


def test_rows_lead_to_the_examples() -> None:
    source = replace(BASE, n_questions=2, n_ood_questions=1)
    rows = list(source.rows())
    assert [row.place for row in rows] == [example.id for example in source.examples()]
    assert [source.to_example(row, GRID) for row in rows] == list(source.examples())


def test_rows_are_lazy() -> None:
    rows = replace(BASE, n_questions=10**12).rows()
    assert next(rows).place == "rubric_check-3-q0-r0"


@pytest.mark.parametrize("labels", [("1", "2", "3", "4"), ("0", "1", "2", "3", "4"), ("1", "2", "3", "4", "5.0")])
def test_a_grid_that_does_not_match_is_refused(labels: tuple[str, ...]) -> None:
    row: RawRow = next(BASE.rows())
    with pytest.raises(ConfigError, match=r"grid\.labels: .* data\.source\.n_constraints = 4"):
        BASE.to_example(row, ScoreGrid(labels))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("cot_noise", 1.5, r"data\.source\.cot_noise: 1\.5 is outside \[0, 1\]"),
        ("score_noise", -0.1, r"data\.source\.score_noise: -0\.1 is outside \[0, 1\]"),
        ("score_noise", float("nan"), r"data\.source\.score_noise: nan is outside \[0, 1\]"),
        ("n_constraints", 1, r"data\.source\.n_constraints: 1 is outside \[2, 7\]"),
        ("n_constraints", 8, r"data\.source\.n_constraints: 8 is outside \[2, 7\]"),
        ("n_questions", 0, r"data\.source\.n_questions: 0 is below 1"),
        ("responses_per_question", 0, r"data\.source\.responses_per_question: 0 is below 1"),
        ("n_ood_questions", -1, r"data\.source\.n_ood_questions: -1 is below 0"),
        ("annotations_per_response", 0, r"data\.source\.annotations_per_response: 0 is below 1"),
    ],
)
def test_bad_arguments_are_refused(name: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(BASE, **{name: value})


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"n_questions: 0 .*; .*cot_noise: 2 "):
        replace(BASE, n_questions=0, cot_noise=2)


def test_fingerprint_follows_every_argument() -> None:
    changed = [
        replace(BASE, **{name: value}) for name, value in (("seed", 4), ("n_questions", 9), ("cot_noise", 0.1), ("score_noise", 0.1))
    ]
    changed += [replace(BASE, n_constraints=3), replace(BASE, n_ood_questions=1), replace(BASE, annotations_per_response=2)]
    changed += [replace(BASE, responses_per_question=1), replace(BASE, kinds=EASY), replace(BASE, wording="plain")]
    prints = {source.fingerprint() for source in [BASE, *changed]}
    assert len(prints) == 11
    assert all(re.fullmatch(r"[0-9a-f]{64}", one) for one in prints)
    assert replace(BASE, cot_noise=0).fingerprint() == BASE.fingerprint()


def test_description_is_one_line() -> None:
    assert "\n" not in BASE.describe()
    assert "seed 3" in BASE.describe()
