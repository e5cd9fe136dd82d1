"""One line of bitsandbytes' is kept out of every command; its other lines are not."""

from __future__ import annotations

import logging

import pytest

from tract import models
from tract.common import library_logs


def test_the_line_about_a_kernel_is_kept_out_and_others_are_not(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    line = "Failed to load CPU gemm_4bit_forward from kernels-community: %s. Please make sure you already `pip install kernels`"
    with caplog.at_level(logging.WARNING, logger=logger.name):
        logger.warning(line, "No module named 'kernels'")
        assert caplog.messages == []
        logger.warning("another %s", "warning")
        logger.error(line, "a real error")
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]


def test_it_is_kept_out_before_peft_is_imported() -> None:
    """The package of all modules that import PEFT is run before them."""
    assert vars(models)["library_logs"] is library_logs
    assert "LoraConfig" not in vars(models)
