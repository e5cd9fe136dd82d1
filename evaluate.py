"""Evaluates a judge: ``python evaluate.py judge=RUN_FOLDER_OR_MODEL evaluation.benchmarks=[FILE]``; ``--help`` shows more."""

from tract.common import import_order

if __name__ == "__main__":  # before all other imports
    import_order.script_folder_last()

from omegaconf import DictConfig  # noqa: E402

from tract.pipeline.entry import launch  # noqa: E402


def main(cfg: DictConfig) -> float | None:
    """Runs the predict and evaluate stages; returns what a sweeper may optimise."""
    from tract.pipeline.validation import validate

    validate(cfg)  # before the heavy imports
    from tract.pipeline.pipeline import run

    return run(cfg)


if __name__ == "__main__":
    launch(main, "evaluate")
