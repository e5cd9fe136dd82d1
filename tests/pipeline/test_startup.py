"""Start-up: what needs no model loads no library that does, so help, composed configurations and typing errors come at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from loaded_modules import HEAVY, python, status_and_modules
from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("train.py", "generate_cot.py", "evaluate.py")
# How often longer than importing Hydra alone the help may take. Measured: 2.4 s for 0.33 s, 7.3 times, of which two thirds are Hydra
# copying what the plugins for searches and jobs register, for each group that it lists; without them 3.4 times. torch alone adds 6.
HELP_RATIO = 12


@pytest.mark.parametrize(
    "command", [*((script, "--help") for script in SCRIPTS), ("train.py", "experiment=tract_mistral", "--cfg", "job", "--resolve")]
)
def test_showing_help_or_configuration_loads_nothing_heavy(command: tuple[str, ...]) -> None:
    status, modules = status_and_modules(*command)
    assert status == 0
    assert {"hydra", "omegaconf", "tract"} <= modules
    assert modules & HEAVY == set()


@pytest.mark.parametrize(
    "mistake", ["model=foo", "train.max_step=2", "+objective.lambda=2", "seed=abc", "~train.keep_weights", "data=feedback_jsonl"]
)
def test_a_wrong_key_or_type_is_told_before_anything_heavy_is_loaded(mistake: str) -> None:
    status, modules = status_and_modules("train.py", mistake)
    assert status == 2
    assert modules & HEAVY == set()


@pytest.mark.parametrize("script", ["train.py", *(pytest.param(script, marks=pytest.mark.kills) for script in SCRIPTS[1:])])
def test_help_takes_little_longer_than_importing_hydra(script: str, record_property: Callable[[str, object], None]) -> None:
    """As a ratio, and of the best times, so that it holds on a slow or busy machine too."""
    shown, bare = best_of_three(script, "--help"), best_of_three("-c", "import hydra, omegaconf")
    record_property("help_s", round(shown, 3))
    record_property("bare_s", round(bare, 3))
    assert shown < HELP_RATIO * bare, f"{script} --help took {shown:.2f} s, importing Hydra alone {bare:.2f} s"


def best_of_three(*arguments: str) -> float:
    """Seconds."""
    found = []
    for _ in range(3):
        begun = time.perf_counter()
        python(*arguments)
        found.append(time.perf_counter() - begun)
    return min(found)


# What `python -m tract.pipeline.launching.job` does before it makes its stage.
_STAGE = """
import sys
from omegaconf import OmegaConf
import tract.pipeline.launching.job
from tract.pipeline.stage_tasks import StageTask, build_stage
build_stage(StageTask(sys.argv[1], {"judge": "base"}, False), OmegaConf.load(sys.argv[2])).identity()
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["generate", "predict"])
def test_a_process_that_samples_loads_no_trainer_and_draws_no_plots(
    stage: str, compose_config: Callable[..., DictConfig], tmp_path: Path
) -> None:
    small = ["model=tiny", "generation=hf", "data.source.n_questions=12", "data.source.n_ood_questions=1", "generation.max_cot_tokens=8"]
    OmegaConf.save(compose_config(*small), tmp_path / "config.yaml", resolve=True)
    modules = set(python("-c", _STAGE, stage, str(tmp_path / "config.yaml")).stdout.split())
    assert {"torch", "transformers"} <= modules
    assert modules & {"lightning", "torchmetrics", "matplotlib", "wandb"} == set()
