"""Loading and saving models, adapters and tokenizers; the packed forward pass over token trees."""

from tract.common import library_logs  # noqa: F401 - before PEFT is imported
