"""Loggers of a stage: W&B with tables and lineage, CSV, TensorBoard."""
