"""Samples CoTs with a judge, for stage 2: ``python generate_cot.py judge=RUN_FOLDER_OR_MODEL``; ``--help`` shows more."""

from omegaconf import DictConfig

from tract.entry import launch


def main(cfg: DictConfig) -> None:
    """Runs the generate stage."""
    from tract.validation import validate

    validate(cfg)  # before the heavy imports
    from tract.stages.pipeline import run_pipeline

    run_pipeline(cfg)


if __name__ == "__main__":
    launch(main, "generate_cot")
