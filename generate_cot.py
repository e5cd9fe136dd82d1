"""Samples CoTs with a judge, for stage 2: ``python generate_cot.py judge=RUN_FOLDER_OR_MODEL``; ``--help`` shows more."""

from tract.common import import_order

if __name__ == "__main__":  # before all other imports
    import_order.script_folder_last()

from omegaconf import DictConfig  # noqa: E402

from tract.pipeline.entry import launch  # noqa: E402


def main(cfg: DictConfig) -> None:
    """Runs the generate stage."""
    from tract.pipeline.validation import validate

    validate(cfg)  # before the heavy imports
    from tract.pipeline.pipeline import run_pipeline

    run_pipeline(cfg)


if __name__ == "__main__":
    launch(main, "generate_cot")
