"""Padded keys: how many operations a token issues, and how often it waits for the device, whatever the number of sequences.

Counted on a CPU, where a GPU's kernels are the operations that torch dispatches, one by one (``torch.no_grad``: in inference mode torch
shows some of them whole). What would make the host wait for a GPU is what hands it a value, or takes one from it: see ``_WAITS``.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hf_judges import SAMPLING
from small_models import family_model
from torch.utils._python_dispatch import TorchDispatchMode

from tract.inference.hf import slots
from tract.inference.hf.judge import HFJudge
from tract.inference.hf.live import LiveCache, prefill
from tract.inference.judgement import Judgement, Prompt
from tract.inference.sampling import draw_tokens
from tract.text.layout import SequenceLayout

CPU = torch.device("cpu")
ROWS = (1, 4, 16)
# Operations that hand a value to the host, or whose result has a size that only the device knows; lift_fresh is torch.tensor(list), which
# sends what pageable memory holds to a GPU and waits until it is there.
_WAITS = {
    "_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal", "_unique2", "unique_dim", "unique_consecutive",
    "lift_fresh",
}  # fmt: skip


class Counted(TorchDispatchMode):
    """Counts dispatched operations by name, and what waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        self.operations[name] += 1
        by_mask = name in ("index", "index_put", "index_put_") and any(t is not None and t.dtype == torch.bool for t in args[1])
        if name in _WAITS or by_mask:
            self.waits[name] += 1
        return function(*args, **(kwargs or {}))


@contextmanager
def tolist_counted(waits: Counter[str]) -> Iterator[None]:
    """``Tensor.tolist``, ``cpu`` and ``numpy`` dispatch nothing on a CPU."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("tolist", "cpu", "numpy"):
            plain = getattr(torch.Tensor, name)

            def counted(self: torch.Tensor, *args: Any, plain: Any = plain, name: str = name, **kwargs: Any) -> Any:
                waits[name] += 1
                return plain(self, *args, **kwargs)

            patch.setattr(torch.Tensor, name, counted)
        yield


def step_of(rows: int, family: str, padded: bool) -> Counter[str]:
    """The operations of one more token for sequences of different prompts, lengths and ages."""
    model = family_model(family)
    with torch.no_grad():
        keys, _ = prefill(model, [list(range(11, 16 + 2 * row)) for row in range(rows)], CPU)
        cache = LiveCache(model, CPU, padded)
        cache.admit(keys[:1])
        cache.append(torch.tensor([7]))
        if rows > 1:
            cache.admit(keys[1:])
        with Counted() as found:
            cache.append(torch.full((rows,), 7))
    assert not found.waits
    return found.operations


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_a_token_takes_as_many_operations_for_sixteen_sequences_as_for_one(family: str) -> None:
    """With one window and with two kinds of layers; the shared keys, which a CPU works on, do take more."""
    one, *more = [step_of(rows, family, padded=True) for rows in ROWS]
    assert all(found == one for found in more)
    assert one["_scaled_dot_product_flash_attention_for_cpu"] == 3  # one for each layer
    assert step_of(4, family, padded=False).total() > 1.5 * step_of(1, family, padded=False).total()


def test_a_step_lives_on_the_device_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """On torch's meta device, which has shapes and no values: asking for one raises, and so does a tensor that lies elsewhere."""
    monkeypatch.setattr(slots, "SPARE_SLOTS", 1)
    meta = torch.device("meta")
    model = family_model("mistral-with-window").to(meta)
    block, depths = torch.zeros(4, dtype=torch.long, device=meta), torch.zeros(4, dtype=torch.long, device=meta)
    with torch.no_grad():
        keys, logits = prefill(model, [list(range(20)), list(range(9))], meta)
        cache = LiveCache(model, meta)
        cache.admit([keys[0], keys[0], keys[1]])
        logits = logits.repeat(2, 1)[:3]
        seen, uniform = torch.zeros_like(logits, dtype=torch.bool), torch.zeros(3, dtype=torch.float64, device=meta)
        for _ in range(6):  # beyond the spare slots
            logits = cache.append(draw_tokens(logits, seen, uniform, SAMPLING, guess=False))
        assert cache.score_without_append(block, depths, torch.ones(4, 4, dtype=torch.bool, device=meta), block[:2]).shape == (3, 2, 512)
    assert cache.own == (6, 6, 6)


@pytest.mark.parametrize("padded", [True, False], ids=["padded", "shared"])
def test_a_sampled_token_waits_for_the_device_once(
    padded: bool, talking_model: Any, tiny_layout: SequenceLayout, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the prompts to the readings; where no CoT has ended. Shared keys look at their nuclei once more."""
    waits: list[Counter[str]] = []
    step = HFJudge._step

    def counted(self: HFJudge, going: Any, free: bool, judgements: list[Judgement]) -> Any:
        made = len(judgements)
        with Counted() as found, tolist_counted(found.waits):
            left = step(self, going, free, judgements)
        if len(judgements) == made:
            waits.append(found.waits)
        return left

    monkeypatch.setattr(HFJudge, "_step", counted)
    judge = HFJudge(talking_model, tiny_layout, dataclasses.replace(SAMPLING, max_cot_tokens=20), 0, None, padded)
    judge.judge(prompts, 2, rows=16, without_cot=False, free=True)
    assert len(waits) > 10
    expected = {"tolist": 1} if padded else {"tolist": 1, "is_nonzero": 1}
    assert all(found == expected for found in waits), waits
