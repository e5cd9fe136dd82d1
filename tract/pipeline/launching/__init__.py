"""Processes of a stage: torchrun's engine, outer launchers, and ``python -m tract.pipeline.launching.job``."""
