"""What the log shows of a training: its steps before it begins, the validation after it."""

from __future__ import annotations

import logging
from pathlib import Path

from tract.config.schema import BatchConfig
from tract.data.datamodule import JudgeDataModule
from tract.method.lit_module import TractLitModule

log = logging.getLogger(__name__)


def announce(cfg: BatchConfig, module: TractLitModule, datamodule: JudgeDataModule, resume: Path | None) -> None:
    """Logs the steps of a training and their size before it begins.

    Args:
        cfg: the configured batch. module, datamodule: what is trained. resume: the checkpoint that it resumes from; None for none.
    """
    sampler = datamodule.train_sampler
    processes = f" on each of {sampler.ranks} processes" if sampler.ranks > 1 else ""
    batch = f"{cfg.global_batch_size} items in {module.accumulate} micro-batch{'es' * (module.accumulate > 1)}{processes}"
    tokens, supervised = (float(counts.mean()) * cfg.global_batch_size for counts in (sampler.lengths, sampler.ce_tokens))
    budget = cfg.max_tokens_per_micro_batch
    if budget is not None and (long := int((sampler.lengths > budget).sum())):
        found = f"{long} of {len(sampler.lengths)} training items are longer, the longest has {int(sampler.lengths.max())} tokens"
        log.warning("batch.max_tokens_per_micro_batch: %d, but %s; each of them is a micro-batch by itself", budget, found)
    begin = f"resuming from {resume}" if resume else "from the start"
    log.info(
        "%d optimizer steps of %s, about %.0f tokens a step, %.0f supervised; %s", module.total_steps, batch, tokens, supervised, begin
    )


def report_validation(seed: dict[str, float | None], final: dict[str, float | None], items: int) -> None:
    """Logs how the trained judge compares with the base model, on the validation split's annotated CoTs.

    Args:
        seed: metrics of the base model, empty if it was not validated. final: of the trained one. items: of the validation split.
    """
    if final:
        log.info("validation behind the last step, %d items with their CoTs%s:", items, ", before -> after training" if seed else "")
    for key, value in final.items():
        before = f"{_metric_text(seed[key])} -> " if key in seed else ""
        why = f" ({undefined_because(items)})" if value is None else ""
        log.info("  %-18s %s%s%s", key, before, _metric_text(value), why)


def _metric_text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:8.4f}"


def undefined_because(items: int) -> str:
    """Why a correlation over so many items is undefined."""
    return "1 item" if items == 1 else f"{items} items, all of one score or of one prediction"
