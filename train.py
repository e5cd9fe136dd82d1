"""Fine-tunes a judge: ``python train.py experiment=tract_quickstart``; ``--help`` lists the configuration groups."""

from omegaconf import DictConfig, OmegaConf

from tract.entry import launch


def main(cfg: DictConfig) -> None:
    """Runs the configured training stage."""
    from tract.validation import validate

    typed = validate(cfg)
    from tract.stages.fit import fit

    OmegaConf.resolve(cfg)
    fit(typed, cfg)


if __name__ == "__main__":
    launch(main, "train")
