"""One line of bitsandbytes' is kept out of every command; its other lines are not."""

from __future__ import annotations

import logging
from types import ModuleType

import pytest

from tract.common import library_logs
from tract.models import adapters, saving


def test_the_line_about_a_kernel_is_kept_out_and_others_are_not(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    line = "Failed to load CPU gemm_4bit_forward from kernels-community: %s. Please make sure you already `pip install kernels`"
    with caplog.at_level(logging.WARNING, logger=logger.name):
        logger.warning(line, "No module named 'kernels'")
        assert caplog.messages == []
        logger.warning("another %s", "warning")
        logger.error(line, "a real error")
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]


@pytest.mark.parametrize(("module", "of_peft"), [(adapters, "LoraConfig"), (saving, "PeftModel")])
def test_it_is_kept_out_before_peft_is_imported(module: ModuleType, of_peft: str) -> None:
    names = list(vars(module))
    assert vars(module)["library_logs"] is library_logs
    assert names.index("library_logs") < names.index(of_peft)
