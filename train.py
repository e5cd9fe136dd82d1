"""Trains and evaluates a judge, all of TRACT: ``python train.py experiment=tract_quickstart``; ``--help`` lists the groups."""

from omegaconf import DictConfig

from tract.entry import launch


def main(cfg: DictConfig) -> None:
    """Runs the stages of the configured pipeline."""
    from tract.validation import validate

    validate(cfg)  # before the heavy imports
    from tract.stages.pipeline import run_pipeline

    run_pipeline(cfg)


if __name__ == "__main__":
    launch(main, "train")
