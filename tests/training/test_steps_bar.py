"""The bar of a training counts optimizer steps and keeps to the terminal."""

from __future__ import annotations

import io
import logging
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tract.common.progress import JOB_LOG
from tract.training.steps_bar import StepsBar


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def train(bar: StepsBar, *, total: int, begun: int, micro_batches: int) -> None:
    """What Lightning calls during a training in which each step is made of so many micro-batches, with a validation behind it."""
    trainer: Any = SimpleNamespace(global_step=begun, callback_metrics={"train/loss": torch.tensor(2.5)})
    module: Any = SimpleNamespace(total_steps=total)
    bar.on_train_start(trainer, module)
    for number in range(1, (total - begun) * micro_batches + 1):
        trainer.global_step = begun + number // micro_batches
        bar.on_train_batch_end(trainer, module, None, None, number)
    bar.on_validation_start(trainer, module)
    bar.on_validation_end(trainer, module)
    bar.teardown(trainer, module, "fit")


def test_a_terminal_gets_a_bar_of_optimizer_steps_that_does_not_wrap(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    train(StepsBar("stage1"), total=6, begun=2, micro_batches=3)
    shown = [line.rstrip() for line in terminal.getvalue().replace("\n", "\r").split("\r") if line.strip()]
    assert shown[0].startswith("stage1: 2 of 6 optimizer steps")
    assert shown[-1].startswith("stage1: 6 of 6 optimizer steps")
    assert any("loss 2.500" in line for line in shown)
    assert any("validating" in line for line in shown)
    assert terminal.getvalue().endswith("\n"), "the line stays"
    assert max(map(len, shown)) <= 80


def test_a_job_of_a_multirun_leaves_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv(JOB_LOG, "job0.log")
    train(StepsBar("stage1"), total=2, begun=0, micro_batches=1)
    assert not terminal.getvalue().rpartition("\r")[2].strip()


def test_a_file_gets_lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with caplog.at_level(logging.INFO, "tract"):
        train(StepsBar("stage2"), total=4, begun=0, micro_batches=2)
    (line,) = caplog.messages
    assert line.startswith("stage2: 4 of 4 optimizer steps (100 %)")


def test_other_ranks_show_nothing(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    bar = StepsBar("stage1")
    bar.disable()
    with caplog.at_level(logging.INFO, "tract"):
        train(bar, total=2, begun=0, micro_batches=1)
    assert (terminal.getvalue(), caplog.messages) == ("", [])
