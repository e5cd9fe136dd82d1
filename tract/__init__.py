"""TRACT judges: two-stage regression-aware fine-tuning of LLM judges (arXiv 2503.04381)."""

__version__ = "0.1.0"
