"""Types of arguments that the typed configuration does not know."""

from __future__ import annotations

import pytest

from tract.config.arguments import argument_problems

ADAMW = {"_target_": "torch.optim.AdamW", "lr": 1, "betas": [0.9, 1], "eps": 1e-8}


@pytest.mark.parametrize(
    "cfg",
    [
        {"optimizer": ADAMW},
        {"optimizer": {"_target_": "my.Optimizer", "lr": "by hand"}},
        {"optimizer": {**ADAMW, "lr": "${train.lr}", "fused": "yes"}},
        {"trainer": {"_target_": "lightning.Trainer", "devices": "auto", "precision": 16, "num_nodes": 2.0}},
        {"scheduler": {"kwargs": {"num_cycles": 2, "decay_type": "linear", "other": "x"}}},
        {"scheduler": {"kwargs": None}, "optimizer": "x"},
    ],
)
def test_accepted(cfg: dict[str, object]) -> None:
    assert list(argument_problems(cfg)) == []


def test_each_problem_is_a_line() -> None:
    trainer = {"_target_": "lightning.Trainer", "log_every_n_steps": "often"}
    assert list(argument_problems({"optimizer": {**ADAMW, "lr": "abc", "betas": "x"}, "trainer": trainer})) == [
        "optimizer.lr: found 'abc'; a number is accepted",
        "optimizer.betas: found 'x'; a list of 2 numbers, e.g. [0.9, 0.999], is accepted",
        "trainer.log_every_n_steps: found 'often'; a whole number is accepted",
    ]
