"""Keeps one line of a library's out of every command; to be imported before the library.

PEFT imports bitsandbytes, which looks for a kernel on a CPU with AVX-512 and warns where the package ``kernels`` is not installed. It
computes without, and nothing of ours uses 4 bits on a CPU. Whatever else bitsandbytes says is kept.
"""

from __future__ import annotations

import logging

_LOGGER, _BEGINNING = "bitsandbytes.backends.cpu.ops", "Failed to load CPU gemm_4bit_forward"


def _is_kept(record: logging.LogRecord) -> bool:
    return record.levelno > logging.WARNING or not record.getMessage().startswith(_BEGINNING)


logging.getLogger(_LOGGER).addFilter(_is_kept)
