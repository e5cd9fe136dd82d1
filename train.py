"""Trains and evaluates a judge, all of TRACT: ``python train.py experiment=tract_quickstart``; ``--help`` lists the groups."""

from omegaconf import DictConfig

from tract.entry import launch


def main(cfg: DictConfig) -> float | None:
    """Runs the stages of the configured pipeline; returns what a sweeper may optimise."""
    from tract.validation import validate

    validate(cfg)  # before the heavy imports
    from tract.stages.pipeline import run

    return run(cfg)


if __name__ == "__main__":
    launch(main, "train")
