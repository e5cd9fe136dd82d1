"""Makes the base model of the study: a small Llama that has read generated judge tasks and feedback on them, but knows no score.

It reads a stream of tasks from another generator seed than the study's data, so no question is in both. Half of the feedback quotes
what it judges by (plain wording), half is worded as the study's annotations; all of it is right. It ends with the answer cue and a
score that is drawn at random: the base model learns what an answer looks like, and nothing of what a response is worth.

Run: python scripts/make_study_model.py            (does nothing if the model is there)
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from random import Random

import torch
from omegaconf import OmegaConf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tract.common.durable import write_folder_atomically
from tract.data.sources.rubric_check.generator import RubricCheck
from tract.text.layout import SequenceLayout
from tract.text.prompts import PromptTemplate
from tract.text.schema import JudgeExample
from tract.text.score_grid import ScoreGrid

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[1]
SPECIAL = ["<unk>", "<pad>", "<|begin|>", "<|system|>", "<|user|>", "<|judge|>", "<|end|>"]
VOCABULARY = 1024
# The generator's seed; the study's data have 0.
SOURCE_SEED = 1000
# Beside a feedback token, so that what is to be learned outweighs the draws of the tasks' texts.
PROMPT_WEIGHT = 0.1
BUFFER = 16  # batches that are sorted by length together
LOG_EVERY = 100  # steps
STEPS, BATCH, LEARNING_RATE, SEED = 1200, 16, 3e-3, 0

Sequence = tuple[list[int], int]


def source(kinds: list[str], wording: str, n_constraints: int) -> RubricCheck:
    """Generated tasks without noise."""
    return RubricCheck(
        n_questions=1, responses_per_question=1, n_ood_questions=0, annotations_per_response=1, n_constraints=n_constraints,
        cot_noise=0.0, score_noise=0.0, seed=SOURCE_SEED, kinds=kinds, wording=wording,
    )  # fmt: skip


def stream(rng: Random) -> Iterator[JudgeExample]:
    """Tasks of two to four constraints without end, in both wordings."""
    kinds = OmegaConf.load(ROOT / "conf" / "experiment" / "study.yaml").data.source.kinds
    sources = [source(list(kinds), wording, n) for wording in ("varied", "plain") for n in (2, 3, 4)]
    for question in count():
        chosen = rng.choice(sources)
        yield chosen.example(chosen.task(question), 0)


def make_tokenizer(rng: Random) -> PreTrainedTokenizerFast:
    """Byte-level BPE, single digits; most words of the tasks are one token."""
    texts = (text for e in islice(stream(rng), 3000) for text in (e.instruction, e.response, e.annotations[0].cot))
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", bos_token="<|begin|>", eos_token="<|end|>"
    )
    made.chat_template = (ROOT / "tract" / "assets" / "tiny" / "chat_template.jinja").read_text(encoding="utf-8")
    return made


def sequences(layout: SequenceLayout, template: PromptTemplate, rng: Random) -> Iterator[Sequence]:
    """(token ids, length of the prompt) of each task, laid out as in fine-tuning, with a random score."""
    for example in stream(rng):
        prompt = layout.prompt_ids(template.render(example, layout.grid))
        feedback = layout.cot_ids(example.annotations[0].cot)
        yield [*prompt, *feedback, *layout.cue_ids, *rng.choice(layout.score_ids), layout.end_id], len(prompt)


def batches(items: Iterator[Sequence], size: int, rng: Random) -> Iterator[tuple[Tensor, Tensor]]:
    """(token ids, their weights in the loss), both [B, T], of sequences of similar length; padding weighs nothing."""
    while True:
        buffer = sorted(islice(items, BUFFER * size), key=lambda item: len(item[0]))
        groups = [buffer[k : k + size] for k in range(0, len(buffer), size)]
        rng.shuffle(groups)
        for group in groups:
            input_ids = torch.ones(size, len(group[-1][0]), dtype=torch.long)
            weights = torch.zeros(input_ids.shape)
            for row, (ids, prompt) in enumerate(group):
                input_ids[row, : len(ids)] = torch.tensor(ids)
                weights[row, :prompt], weights[row, prompt : len(ids)] = PROMPT_WEIGHT, 1.0
            yield input_ids, weights


def train(model: LlamaForCausalLM, data: Iterator[tuple[Tensor, Tensor]], steps: int) -> None:
    """Next-token prediction, with a linear warm-up and decay."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    warmup = steps // 20 + 1
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min((k + 1) / warmup, (steps - k) / max(steps - warmup, 1)))
    start, total = time.monotonic(), 0.0
    for step, (input_ids, weights) in enumerate(islice(data, steps), start=1):
        logits = model(input_ids=input_ids).logits[:, :-1]
        losses = cross_entropy(logits.flatten(0, 1), input_ids[:, 1:].flatten(), reduction="none")
        loss = (losses * weights[:, 1:].flatten()).sum() / weights[:, 1:].sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total += loss.item()
        if step % LOG_EVERY == 0:
            log.info("step %d of %d: loss %.4f, %.0f s", step, steps, total / LOG_EVERY, time.monotonic() - start)
            total = 0.0


def make_layout(tokenizer: PreTrainedTokenizerFast) -> tuple[SequenceLayout, PromptTemplate]:
    """How sequences are laid out in the study, and how its prompts are worded."""
    template = PromptTemplate(**OmegaConf.load(ROOT / "conf" / "prompt" / "short.yaml"))
    grid = ScoreGrid(tuple(OmegaConf.load(ROOT / "conf" / "grid" / "one_to_five.yaml").labels))
    return SequenceLayout.build(tokenizer, system=True, cue=template.cue, grid=grid, chat_template_kwargs={}), template


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Four layers of width 128 with random weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=336, num_hidden_layers=4, num_attention_heads=4, head_dim=32,
        max_position_embeddings=1024, tie_word_embeddings=True, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def main() -> None:
    """Writes a Hugging Face folder, in whole or not at all."""
    parser = argparse.ArgumentParser(description="Makes the base model of the study, unless it is there.")
    cache = OmegaConf.load(ROOT / "conf" / "paths" / "default.yaml").cache
    parser.add_argument("--out", type=Path, default=Path(cache) / "study-model", help="where conf/model/study.yaml looks, if not given")
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.out.is_dir():
        log.info("%s is there", args.out)
        return
    torch.set_num_threads(1)  # the same weights on any number of cores
    torch.manual_seed(SEED)
    rng = Random(SEED)
    tokenizer = make_tokenizer(rng)
    layout, template = make_layout(tokenizer)
    model = make_model(tokenizer)
    train(model, batches(sequences(layout, template, rng), BATCH, rng), args.steps)
    with write_folder_atomically(args.out) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)


if __name__ == "__main__":
    main()
