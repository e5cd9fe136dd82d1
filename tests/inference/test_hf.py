"""The Hugging Face backend: batch, order and number of CoTs move nothing, and the live cache reads what a fresh forward reads."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from typing import Any

import pytest
import torch
from hf_judges import SAMPLING, make_judge
from small_models import FAMILIES, family_model

from tract.common.errors import GenerationError
from tract.config.schema import ModelConfig
from tract.inference.hf import readout
from tract.inference.hf.judge import HFJudge
from tract.inference.judgement import CUE, DIRECT, END, FINISHES, GIVEN, LENGTH, NONE, Judgement, Prompt, no_distribution
from tract.inference.sampling import Sampling
from tract.inference.stopping import score_of_path
from tract.method.predictors import log_normalizer, score_probabilities
from tract.models.loading import load_judge, stored_in
from tract.text.layout import SequenceLayout
from tract.text.score_grid import ScoreGrid

TO_FIVE, TO_TEN = tuple("12345"), tuple(str(n) for n in range(1, 11))


def judge_all(judge: HFJudge, prompts: list[Prompt], sequences: int, n_cot: int, *, free: bool = True) -> list[Judgement]:
    return judge.judge(prompts, n_cot, rows=sequences, without_cot=True, free=free)


def fresh_probabilities(model: Any, layout: SequenceLayout, prompt: Prompt, cot_ids: tuple[int, ...]) -> torch.Tensor:
    """The score distribution by plain forward passes without a cache, one for each node of the score trie."""
    rows = []
    for path in layout.trie.paths:
        ids = torch.tensor([[*prompt.prompt_ids, *cot_ids, *layout.cue_ids, *path]])
        with torch.no_grad():
            rows.append(model(input_ids=ids, use_cache=False).logits[0, -1])
    logits = torch.stack(rows)
    return score_probabilities(logits, log_normalizer(logits), torch.arange(len(rows))[None], layout.trie)[0]


@pytest.fixture(scope="module")
def reference(talking_model: Any, tiny_layout: SequenceLayout, prompts: list[Prompt]) -> list[Judgement]:
    """Three CoTs of each prompt, one prompt at a time."""
    return judge_all(make_judge(talking_model, tiny_layout), prompts, 3, 3)


def test_every_kind_of_end_occurs(reference: list[Judgement], prompts: list[Prompt]) -> None:
    """Else the other tests would say little."""
    finishes = Counter(judgement.finish for judgement in reference)
    assert finishes[NONE] == len(prompts)
    assert finishes[CUE] >= 4
    assert finishes[LENGTH] >= 1
    assert set(finishes) <= set(FINISHES)
    assert [(j.row, j.sample) for j in reference] == [(row, sample) for row in range(len(prompts)) for sample in (DIRECT, 0, 1, 2)]


@pytest.mark.parametrize(
    ("sequences", "n_cot", "padded"),
    [(1, 1, False), (6, 3, False), (24, 3, False), (100, 2, False), (5, 5, False), (1, 1, True), (6, 3, True), (24, 3, True)],
)
def test_batch_size_number_of_cots_and_kind_of_keys_change_no_token_and_no_score(
    sequences: int, n_cot: int, padded: bool, talking_model: Any, tiny_layout: SequenceLayout, prompts: list[Prompt],
    reference: list[Judgement],
) -> None:  # fmt: skip
    """Padded, also through the draws that a GPU makes."""
    shuffled = random.Random(sequences).sample(prompts, len(prompts))
    judge = make_judge(talking_model, tiny_layout, padded=padded)
    found = {(j.row, j.sample): j for j in judge_all(judge, shuffled, sequences, n_cot)}
    assert len(found) == len(prompts) * (n_cot + 1)
    for judgement in reference:
        if judgement.sample < n_cot:
            again = found[judgement.row, judgement.sample]
            assert dataclasses.replace(again, probabilities=()) == dataclasses.replace(judgement, probabilities=())
            torch.testing.assert_close(torch.tensor(again.probabilities), torch.tensor(judgement.probabilities), rtol=0, atol=1e-5)


def test_another_seed_and_another_sample_draw_other_cots(
    talking_model: Any, tiny_layout: SequenceLayout, prompts: list[Prompt], reference: list[Judgement]
) -> None:
    other = judge_all(make_judge(talking_model, tiny_layout, seed=1), prompts, 36, 3)
    differ = sum(a.cot_ids != b.cot_ids for a, b in zip(reference, other, strict=True) if a.sample != DIRECT)
    assert differ > len(prompts)
    by_sample = {(j.row, j.sample): j.cot_ids for j in reference}
    assert sum(by_sample[row, 0] != by_sample[row, 1] for row in range(len(prompts))) > len(prompts) // 2


def test_a_score_read_from_the_live_cache_is_that_of_a_fresh_forward(
    talking_model: Any, tiny_layout: SequenceLayout, prompts: list[Prompt], reference: list[Judgement]
) -> None:
    for judgement in reference:
        fresh = fresh_probabilities(talking_model, tiny_layout, prompts[judgement.row], judgement.cot_ids)
        torch.testing.assert_close(torch.tensor(judgement.probabilities), fresh, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("labels", "padded"), [(TO_FIVE, False), (TO_TEN, False), (TO_TEN, True)], ids=["to_five", "to_ten", "to_ten-padded"]
)
def test_every_model_family_reads_from_the_cache_what_a_fresh_forward_reads(
    family: str, labels: tuple[str, ...], padded: bool, tiny_tokenizer: Any, prompts: list[Prompt]
) -> None:
    """Also with sliding windows shorter than the prompts, and scores of two tokens."""
    layout = SequenceLayout.build(
        tiny_tokenizer, system=False, cue=" So the overall score is ", grid=ScoreGrid(labels), chat_template_kwargs={}
    )
    model = family_model(family)
    judge = make_judge(model, layout, dataclasses.replace(SAMPLING, max_cot_tokens=12), padded=padded)
    for judgement in judge.judge(prompts[:3], 2, rows=4, without_cot=True, free=True):
        fresh = fresh_probabilities(model, layout, prompts[judgement.row], judgement.cot_ids)
        torch.testing.assert_close(torch.tensor(judgement.probabilities), fresh, rtol=0, atol=1e-4)


def test_sampled_tokens_are_those_of_a_loop_without_cache(
    talking_model: Any, tiny_layout: SequenceLayout, prompts: list[Prompt], reference: list[Judgement]
) -> None:
    """Greedy: the whole sequence runs through the model again for each token."""
    greedy = make_judge(talking_model, tiny_layout, Sampling(temperature=0, top_p=0.9, repetition_penalty=1.2, max_cot_tokens=20))
    for judgement in judge_all(greedy, prompts[:3], 3, 1):
        if judgement.sample == DIRECT:
            continue
        ids = list(prompts[judgement.row].prompt_ids)
        for token in judgement.cot_ids:
            with torch.no_grad():
                logits = talking_model(input_ids=torch.tensor([ids])).logits[0, -1]
            used = torch.tensor(sorted(set(ids)))
            logits[used] = torch.where(logits[used] > 0, logits[used] / 1.2, logits[used] * 1.2)
            assert token == int(logits.argmax())
            ids.append(token)


def test_given_cots_are_read_alike(
    talking_model: Any, tiny_layout: SequenceLayout, prompts: list[Prompt], reference: list[Judgement]
) -> None:
    sampled = [judgement for judgement in reference if judgement.sample == 1]
    judge = make_judge(talking_model, tiny_layout)
    read = judge.read(prompts, [[(1, judgement.cot_ids)] for judgement in sampled])
    for judgement, again in zip(sampled, read, strict=True):
        assert (again.finish, again.cot_ids, again.cot, again.raw_output) == (GIVEN, judgement.cot_ids, judgement.cot, None)
        torch.testing.assert_close(torch.tensor(again.probabilities), torch.tensor(judgement.probabilities), rtol=0, atol=1e-5)


def test_a_cot_never_holds_the_cue_and_the_free_text_does(tiny_layout: SequenceLayout, reference: list[Judgement]) -> None:
    cue = tiny_layout.cue.strip()
    for judgement in reference:
        assert cue not in judgement.cot
        assert len(judgement.cot_ids) <= SAMPLING.max_cot_tokens
        if judgement.finish == CUE:
            assert judgement.raw_output is not None
            assert judgement.raw_output.startswith(judgement.cot)
            assert cue in judgement.raw_output
    assert any(judgement.raw_output.rpartition(cue)[2].strip()[:1].isdigit() for judgement in reference if judgement.finish == CUE)  # type: ignore[union-attr]


def test_without_free_text_sampling_ends_at_the_cue(
    talking_model: Any, tiny_layout: SequenceLayout, prompts: list[Prompt], reference: list[Judgement]
) -> None:
    short = judge_all(make_judge(talking_model, tiny_layout), prompts, 36, 3, free=False)
    assert [(j.cot_ids, j.finish, j.forced_decode) for j in short] == [(j.cot_ids, j.finish, j.forced_decode) for j in reference]
    assert all((j.raw_output or tiny_layout.cue.strip()).endswith(tiny_layout.cue.strip()) for j in short if j.finish == CUE)


def test_end_of_turn_ends_a_cot(talking_model: Any, tiny_layout: SequenceLayout, prompts: list[Prompt]) -> None:
    """A head that wants nothing but the end of turn."""
    head = talking_model.get_output_embeddings()
    handle = head.register_forward_hook(
        lambda _, args, logits: torch.full_like(logits, -10.0).index_fill_(-1, torch.tensor([tiny_layout.end_id]), 10.0)
    )
    try:
        (judgement,) = make_judge(talking_model, tiny_layout).judge(prompts[:1], 1, rows=1, without_cot=False, free=True)
    finally:
        handle.remove()
    assert (judgement.finish, judgement.cot_ids, judgement.cot, judgement.raw_output) == (END, (), "", "")
    assert judgement.forced_decode is None  # the end of turn is no score


def test_logits_that_are_not_finite_name_the_examples(talking_model: Any, tiny_layout: SequenceLayout, prompts: list[Prompt]) -> None:
    handle = talking_model.get_output_embeddings().register_forward_hook(lambda _, args, logits: logits * float("nan"))
    try:
        with pytest.raises(GenerationError, match=f"logits are not finite for {prompts[0].id}.*32-true"):
            make_judge(talking_model, tiny_layout).judge(prompts[:1], 1, rows=1, without_cot=False, free=True)
    finally:
        handle.remove()


@pytest.mark.parametrize("way", ["sampled", "read"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_of_a_batch_only_the_example_that_is_not_finite_is_named(
    way: str, value: float, talking_model: Any, tiny_layout: SequenceLayout, prompts: list[Prompt]
) -> None:
    """One logit of the last sequence, whether it is a token of a CoT or a score that is read."""

    def plant(_: Any, args: Any, logits: torch.Tensor) -> torch.Tensor:
        logits[..., -1, 7] = value
        return logits

    judge = make_judge(talking_model, tiny_layout)
    handle = talking_model.get_output_embeddings().register_forward_hook(plant)
    try:
        with pytest.raises(GenerationError, match=f"logits are not finite for {prompts[1].id}; set trainer.precision"):
            judge.judge(prompts[:2], 1, rows=2, without_cot=False, free=True) if way == "sampled" else judge.read(
                prompts[:2], [[(0, ())]] * 2
            )
    finally:
        handle.remove()


def test_many_large_float16_logits_are_finite(talking_model: Any, tiny_layout: SequenceLayout, prompts: list[Prompt]) -> None:
    """Their sum is beyond float16; the vocabulary of a real model gets there with logits of 1."""
    judge = make_judge(talking_model, tiny_layout)
    logits = torch.full((1, 100_000), 60.0, dtype=torch.float16)
    assert not torch.isfinite(logits.sum())
    judge._reader.check_finite(logits, [judge._sequence(prompts[0], 0)])


@pytest.mark.parametrize("autocast", [None, torch.bfloat16], ids=["stored", "autocast"])
def test_the_softmax_over_scores_is_float32_whatever_the_model_computes_in(
    autocast: torch.dtype | None, tiny_model_config: ModelConfig, tiny_layout: SequenceLayout, prompts: list[Prompt],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Probabilities are those of the bfloat16 logits in float32, to its last digits, and no numbers of bfloat16."""
    model = load_judge(tiny_model_config, None, four_bit=False, seed=0)
    judge = HFJudge(model if autocast else stored_in(model, torch.bfloat16), tiny_layout, SAMPLING, seed=0, autocast=autocast)
    seen: list[torch.Tensor] = []
    whole = readout.log_normalizer
    monkeypatch.setattr(readout, "log_normalizer", lambda logits: seen.append(logits) or whole(logits))
    (judgement,) = judge.read(prompts[:1], [[(0, ())]])
    (logits,) = seen
    assert logits.dtype == torch.bfloat16
    expected = torch.softmax(logits.double(), dim=-1)[0, [ids[0] for ids in tiny_layout.score_ids]]
    found = torch.tensor(judgement.probabilities, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=3e-6, atol=0)
    assert not torch.equal(found, found.bfloat16().double())


def test_padded_keys_under_autocast(talking_model: Any, tiny_layout: SequenceLayout, prompts: list[Prompt]) -> None:
    """Keys leave the rotation in float32; they are held in the dtype in which the products are made."""
    found = []
    for autocast, padded in ((torch.bfloat16, True), (torch.bfloat16, False), (None, True)):
        judge = HFJudge(talking_model, tiny_layout, SAMPLING, seed=0, autocast=autocast, padded=padded)
        read = judge.judge(prompts, 0, rows=4, without_cot=True, free=False)
        found.append(torch.tensor([judgement.probabilities for judgement in read]))
    padded_half, shared_half, whole = found
    assert 0 < (shared_half - whole).abs().max() < 0.05
    assert (padded_half - shared_half).abs().max() < 0.02


def test_forced_draws_follow_the_distribution(talking_model: Any, tiny_layout: SequenceLayout, prompts: list[Prompt]) -> None:
    """Over many samples of one prompt the share of each score is its probability (no nucleus, no penalty)."""
    plain = Sampling(temperature=1.0, top_p=1.0, repetition_penalty=1.0, max_cot_tokens=4)
    judge = make_judge(talking_model, tiny_layout, plain)
    read = judge.read(prompts[:1], [[(sample, ()) for sample in range(400)]])
    drawn = Counter(judgement.forced_decode for judgement in read)
    for place, probability in enumerate(read[0].probabilities):
        assert drawn[place] / 400 == pytest.approx(probability, abs=0.09)


@pytest.mark.parametrize(
    ("path", "expected"), [("1 x", 0), ("1 0", 9), ("2", 1), ("9", 8), ("x", None), ("0", None)], ids=lambda value: str(value)
)
def test_which_score_drawn_tokens_mean(path: str, expected: int | None, tiny_tokenizer: Any) -> None:
    labels = tuple(str(n) for n in range(1, 11))
    layout = SequenceLayout.build(tiny_tokenizer, system=False, cue=" Score: ", grid=ScoreGrid(labels), chat_template_kwargs={})
    ids = {label: token[0] for label, token in zip(labels, layout.score_ids, strict=True)}
    ids |= {"0": layout.score_ids[9][-1], "x": 0}
    assert score_of_path(tuple(ids[piece] for piece in path.split()), layout) == expected


def test_judgements_survive_json(reference: list[Judgement]) -> None:
    import json

    for judgement in reference:
        assert Judgement.from_dict(json.loads(json.dumps(judgement.to_dict()))) == judgement
    with pytest.raises(ValueError, match="finish: 'no' is not one of"):
        Judgement.from_dict({**reference[0].to_dict(), "finish": "no"})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((float("nan"), 0.1), "that of score number 1 is nan"),
        ((0.1, float("inf")), "that of score number 2 is inf"),
        ((0.1, -0.2), "that of score number 2 is -0.2"),
        ((0.1, None), "that of score number 2 is None"),
        ((0.9, 0.2), "they sum to 1.1, more than 1"),
        ((0.5, 0.505), None),  # rounding of a server in bfloat16
        ((0.0, 0.0), None),
    ],
)
def test_numbers_that_are_no_probabilities_make_no_judgement(values: Any, said: str | None, reference: list[Judgement]) -> None:
    record = {**reference[0].to_dict(), "probabilities": list(values)}
    assert no_distribution(values) == said
    if said is None:
        assert Judgement.from_dict(record).probabilities == values
    else:
        with pytest.raises(ValueError, match=f"probabilities: {said}"):
            Judgement.from_dict(record)
