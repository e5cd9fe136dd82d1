"""Writing models: a judge's adapter or weights with its tokenizer, and whole models."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tract.common import library_logs  # noqa: F401 - before PEFT is imported
from tract.common.durable import write_atomically

# isort: split
from peft import PeftModel
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

_DEEPSPEED = "deepspeed"


def save_judge(model: nn.Module, tokenizer: Any, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Writes the adapter (PEFT) or the full weights as safetensors, and the tokenizer; equal judges give equal bytes.

    Args:
        model: says what is saved and how it is called; its own parameters may be spread over ranks.
        tokenizer: of the base model. folder: is written to.
        weights: the trained parameters by their names in the model, whole; None for the model's own.
    """
    with _without_deepspeed(), without_progress_bars():
        if isinstance(model, PeftModel):
            _save_adapter(model, weights, folder)
        elif weights is None:
            model.save_pretrained(folder)  # type: ignore[operator]
        else:
            parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
            buffers = {name: value for name, value in model.state_dict().items() if name not in parameters}
            model.save_pretrained(folder, state_dict={**weights, **buffers})  # type: ignore[operator]
    tokenizer.save_pretrained(folder)


def _save_adapter(model: PeftModel, weights: dict[str, Tensor] | None, folder: Path) -> None:
    # No token is ever added, so adapters never need a copy of the embeddings.
    model.save_pretrained(folder, state_dict=weights, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's model card: a form that nobody has filled in
    path = folder / "adapter_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for name, value in vars(model.active_peft_config).items():
        if isinstance(value, set):  # PEFT writes it in the order of string hashes, another one in every process
            content[name] = sorted(value)
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, sort_keys=True), encoding="utf-8")


def save_here(model: Any, folder: Path) -> None:
    """Writes a whole model on any rank; transformers silently writes nothing on ranks other than the first."""
    model.should_save_on_this_rank = lambda is_main_process: True
    with _without_deepspeed(), without_progress_bars():
        model.save_pretrained(folder)


@contextmanager
def _without_deepspeed() -> Iterator[None]:
    """Keeps transformers from importing DeepSpeed if it is not imported yet.

    When it writes a model, transformers asks accelerate whether DeepSpeed's engine is wrapped around it, and where DeepSpeed is
    installed this imports all of it: seconds, and a warning on machines without a GPU. A wrapped model exists only where DeepSpeed was
    imported before.
    """
    if _DEEPSPEED in sys.modules:
        yield
        return
    sys.modules[_DEEPSPEED] = None  # type: ignore[assignment]  # Python's own sign for a package that cannot be imported
    try:
        yield
    finally:
        del sys.modules[_DEEPSPEED]


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keeps the progress bars of transformers out of the log, when it loads and writes."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
