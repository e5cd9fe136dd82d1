"""Evaluates a judge: ``python evaluate.py judge=RUN_FOLDER_OR_MODEL evaluation.benchmarks=[FILE]``; ``--help`` shows more."""

from omegaconf import DictConfig

from tract.entry import launch


def main(cfg: DictConfig) -> float | None:
    """Runs the predict and evaluate stages; returns what a sweeper may optimise."""
    from tract.validation import validate

    validate(cfg)  # before the heavy imports
    from tract.stages.pipeline import run

    return run(cfg)


if __name__ == "__main__":
    launch(main, "evaluate")
