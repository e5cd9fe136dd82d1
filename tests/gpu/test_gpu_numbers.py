"""The arithmetic on a GPU: the same bodies run on a CPU, so that what is skipped here is known to run."""

from __future__ import annotations

import copy
import dataclasses
import gc
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from judge_items import FULL, LORA, TRACT, batch_of, gradient, make_items, make_module, relative_error, totals_of
from torch import Tensor

from tract.config.schema import AdapterConfig, ModelConfig
from tract.data.batches import TrainingItem
from tract.inference.hf.judge import HFJudge
from tract.inference.judgement import Prompt
from tract.inference.sampling import Sampling, draw_tokens
from tract.method.lit_module import TractLitModule
from tract.models.log_probs import chosen_log_probs
from tract.text.layout import SequenceLayout

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
on_each_device = pytest.mark.parametrize("device", DEVICES)
SAMPLING = Sampling(temperature=1.0, top_p=0.9, repetition_penalty=1.03, max_cot_tokens=24)
# Of the relative error of a whole gradient that two orders of adding up may give.
EPSILON = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-3}


@pytest.fixture(autouse=True)
def _memory_is_given_back() -> Iterator[None]:
    yield
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def module_on(device: str, dtype: str, cfg: ModelConfig, layout: SequenceLayout, adapter: AdapterConfig = FULL) -> TractLitModule:
    return make_module(dataclasses.replace(cfg, dtype=dtype), layout, TRACT, adapter).to(device)


def step_gradient(
    module: TractLitModule, parts: list[list[TrainingItem]], layout: SequenceLayout, device: str, *, share: bool = True
) -> Tensor:
    """[n] float32 on the CPU, the gradient of a step that is cut so."""
    totals = totals_of([item for part in parts for item in part], layout, TRACT)
    return gradient(module, [batch_of(part, layout, TRACT, totals, share_prompts=share).to(device) for part in parts]).float().cpu()


@on_each_device
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("adapter", [FULL, LORA], ids=["full", "lora"])
def test_the_packed_gradient_is_that_of_each_item_alone(
    adapter: AdapterConfig, dtype: str, device: str, tiny_model_config: ModelConfig, tiny_layout: SequenceLayout
) -> None:
    items = make_items(tiny_layout, 6)
    module = module_on(device, dtype, tiny_model_config, tiny_layout, adapter)
    packed = step_gradient(module, [items], tiny_layout, device)
    alone = step_gradient(module, [[item] for item in items], tiny_layout, device)
    assert relative_error(packed, alone) <= EPSILON[dtype]


@on_each_device
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_tree_attention_is_that_of_separate_sequences(
    dtype: str, device: str, tiny_model_config: ModelConfig, tiny_layout: SequenceLayout
) -> None:
    """Three annotations that share a prompt; fused kernels where they exist for the dtype."""
    items = make_items(tiny_layout, 4, annotations=3)
    module = module_on(device, dtype, tiny_model_config, tiny_layout)
    alone = [dataclasses.replace(item, continuations=[each]) for item in items for each in item.continuations]
    shared = step_gradient(module, [items], tiny_layout, device)
    separate = step_gradient(module, [[item] for item in alone], tiny_layout, device, share=False)
    assert shared.isfinite().all()
    assert relative_error(shared, separate) <= EPSILON[dtype]


@on_each_device
def test_bf16_mixed_is_near_float32(device: str, tiny_model_config: ModelConfig, tiny_layout: SequenceLayout) -> None:
    """Frozen bfloat16 weights and a float32 adapter under autocast, as trainer=single trains."""
    items = make_items(tiny_layout, 4)
    exact = step_gradient(module_on("cpu", "float32", tiny_model_config, tiny_layout, LORA), [items], tiny_layout, "cpu")
    module = module_on(device, "bfloat16", tiny_model_config, tiny_layout, LORA)
    with torch.autocast(device, torch.bfloat16):
        mixed = step_gradient(module, [items], tiny_layout, device)
    assert {p.dtype for p in module.parameters() if p.requires_grad} == {torch.float32}
    assert relative_error(mixed, exact) <= 5e-2


@on_each_device
@pytest.mark.parametrize("trained", [True, False])
def test_chosen_log_probs_are_those_of_the_whole_softmax(trained: bool, device: str) -> None:
    """bfloat16, 50,000 columns: no further from the truth than the plain way."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(24, 64, generator=generator).to(device, torch.bfloat16).requires_grad_()
    weight = torch.randn(50_000, 64, generator=generator).to(device, torch.bfloat16).requires_grad_(trained)
    rows, tokens = (torch.randint(0, most, (60,), generator=generator).to(device) for most in (24, 50_000))
    exact = torch.log_softmax(hidden.detach().double() @ weight.detach().double().T, -1)[rows, tokens]
    plain = torch.log_softmax((hidden @ weight.T).float(), -1)[rows, tokens]
    found = chosen_log_probs(hidden, weight, None, rows, tokens)
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() <= 1.5 * (plain - exact).abs().max()
    (ours,) = torch.autograd.grad(found.sum(), hidden, retain_graph=True)
    (theirs,) = torch.autograd.grad(plain.sum(), hidden)
    assert relative_error(ours.float(), theirs.float()) <= EPSILON["bfloat16"]


@on_each_device
@pytest.mark.parametrize("sampling", [SAMPLING, dataclasses.replace(SAMPLING, top_p=1.0), dataclasses.replace(SAMPLING, temperature=0.0)])
def test_equal_uniform_numbers_draw_equal_tokens(sampling: Sampling, device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(512, 4096, generator=generator) * 3
    seen = torch.rand(512, 4096, generator=generator) < 0.1
    uniform = torch.rand(512, generator=generator, dtype=torch.float64)
    expected = draw_tokens(logits, seen, uniform, sampling)
    found = draw_tokens(logits.to(device), seen.to(device), uniform.to(device), sampling).cpu()
    # Rounding moves the border between two tokens by a millionth.
    assert int((found != expected).sum()) <= 1


def judged(model: Any, layout: SequenceLayout, device: str, n_cot: int = 2) -> Any:
    prompts = [Prompt(item.id, row, tuple(item.prompt_ids)) for row, item in enumerate(make_items(layout, 5))]
    judge = HFJudge(copy.deepcopy(model).to(device), layout, SAMPLING, 0, None)
    return judge.judge(prompts, n_cot, rows=6, without_cot=True, free=True)


@on_each_device
def test_the_live_cache_judges_as_on_a_cpu(device: str, talking_model: Any, tiny_layout: SequenceLayout) -> None:
    """float32: the same CoTs but for one draw at a border, the same distributions. On a CPU: twice the same bits."""
    expected, found = judged(talking_model, tiny_layout, "cpu"), judged(talking_model, tiny_layout, device)
    same = [(a, b) for a, b in zip(found, expected, strict=True) if a.cot_ids == b.cot_ids]
    assert len(same) >= len(expected) - 1
    for a, b in same:
        torch.testing.assert_close(torch.tensor(a.probabilities), torch.tensor(b.probabilities), rtol=0, atol=1e-4)
    if device == "cpu":
        assert found == expected


def never_ending(judge: HFJudge) -> None:
    """No token ends a CoT."""
    judge._finder.end_ids = frozenset()
    judge._finder.cot_length = lambda ids: None  # type: ignore[method-assign]
    judge._cue_margin = 0


def synchronisations(model: Any, layout: SequenceLayout, tokens: int) -> int:
    """How often the host waits for the device while CoTs of so many tokens are sampled."""
    judge = HFJudge(model, layout, dataclasses.replace(SAMPLING, max_cot_tokens=tokens), 0, None)
    never_ending(judge)
    prompts = [Prompt(item.id, row, tuple(item.prompt_ids)) for row, item in enumerate(make_items(layout, 4))]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            judge.judge(prompts, 1, rows=4, without_cot=False, free=False)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(each.message) for each in said)


@pytest.mark.gpu
def test_the_host_waits_once_for_each_token(talking_model: Any, tiny_layout: SequenceLayout) -> None:
    model = copy.deepcopy(talking_model).to("cuda")
    synchronisations(model, tiny_layout, 4)  # what is made at the first use
    fewer, more = (synchronisations(model, tiny_layout, tokens) for tokens in (16, 48))
    assert more - fewer <= 32


@on_each_device
def test_qlora_learns(device: str, tiny_layout: SequenceLayout, tmp_path: Any) -> None:
    """Six items again and again: the loss falls, and only the adapter moves."""
    if device == "cpu" and torch.cuda.is_available():
        pytest.skip("quantised weights are put on the GPU where there is one")
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install -c constraints.txt bitsandbytes")
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        bos_token_id=None, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tiny_layout.tokenizer.save_pretrained(tmp_path)
    cfg = ModelConfig(
        name_or_path=str(tmp_path), package=None, revision=None, tokenizer_name_or_path=None, random_init=False, dtype="float32",
        attn_implementation="tree", pad_token=None, chat_template=None, chat_template_kwargs={}, template_date="2024-07-26",
        gradient_checkpointing=False, trust_remote_code=False, unpacked=None,
    )  # fmt: skip
    qlora = dataclasses.replace(LORA, kind="qlora")
    module = make_module(cfg, tiny_layout, TRACT, qlora)
    module.to(device)
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=3e-2)
    batch = batch_of(make_items(tiny_layout, 6), tiny_layout, TRACT).to(device)
    frozen = {name: p.detach().clone() for name, p in module.named_parameters() if not p.requires_grad}
    assert any(p.dtype == torch.uint8 for p in frozen.values())
    losses = []
    for _ in range(16):
        optimizer.zero_grad()
        loss = module.training_step(batch, 0)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1
    assert all(torch.equal(p, frozen[name]) for name, p in module.named_parameters() if name in frozen)


@pytest.mark.gpu
@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_vllm_reads_the_scores_that_hf_reads(talking_model: Any, talking_folder: str, tiny_layout: SequenceLayout) -> None:
    """Greedy, float32, on the GPU: equal CoTs but for ties, RAIL within 1e-3."""
    from tract.inference.engines.judge import EngineJudge
    from tract.inference.engines.vllm import VLLMEngine, VLLMSettings

    prompts = [Prompt(item.id, row, tuple(item.prompt_ids)) for row, item in enumerate(make_items(tiny_layout, 6))]
    greedy = dataclasses.replace(SAMPLING, temperature=0.0)
    expected = HFJudge(copy.deepcopy(talking_model).to("cuda"), tiny_layout, greedy, 0, None).judge(
        prompts, 1, rows=6, without_cot=True, free=False
    )
    settings = VLLMSettings(
        model=talking_folder, revision=None, tokenizer=talking_folder, adapter=None, adapter_rank=0, dtype="float32", max_length=2048,
        seed=0, sequences=8, cpu=False, devices=(0,), shared_cores=False, trust_remote_code=False, gpu_memory_utilization=0.3,
        kv_cache_gib=1.0, enforce_eager=True, engine={},
    )  # fmt: skip

    async def start() -> Any:
        return VLLMEngine(settings)

    judge = EngineJudge(start, tiny_layout, greedy, 0)
    try:
        made = judge.judge_parts([prompts], 1, rows=8, without_cot=True, free=False, progress=lambda _: None)
        found = sorted((each for some in made for each in some), key=lambda j: (j.row, j.sample))
    finally:
        judge.close()
    ordered = sorted(expected, key=lambda j: (j.row, j.sample))
    values = torch.tensor(tiny_layout.grid.values)
    same = [(a, b) for a, b in zip(found, ordered, strict=True) if a.cot_ids == b.cot_ids]
    assert len(same) >= len(ordered) - 2  # where two tokens are as likely as each other, rounding decides
    for a, b in same:
        rail = [float((torch.tensor(j.probabilities) * values).sum()) for j in (a, b)]
        assert rail[0] == pytest.approx(rail[1], abs=1e-3)
