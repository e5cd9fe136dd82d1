"""Every YAML file of conf: it composes, it validates, its keys are known; every experiment builds and takes a step."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch
import yaml
from composing import CONF
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict
from tiny_overrides import TINY
from tracked_files import tracked

from tract.common.masking import masked
from tract.config.schema import YAML_NAMES, Config
from tract.pipeline.stage_tasks import stage_config
from tract.pipeline.stages.fit import build
from tract.pipeline.stages.prepare import prepare
from tract.pipeline.validation import validate

Compose = Callable[..., DictConfig]


def names(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix() for path in tracked(folder, "*.yaml") if not path.name.startswith("_")
    )


EXPERIMENTS = names(CONF / "experiment")
# The configurations of the entry scripts.
ROOTS = ("train", "generate_cot", "evaluate")
GROUPS = sorted({path.relative_to(CONF).parts[0] for path in tracked(CONF, "*.yaml") if path.parent != CONF} - {"hydra"})
OPTIONS = [(group, option) for group in GROUPS for option in names(CONF / group)]
# What an option needs from the user, or from another group.
NEEDS = {
    ("trainer", "deepspeed_zero3_offload"): ["optimizer=cpu_adamw"],
    ("data", "feedback_jsonl"): ["data.path=judged.jsonl"],
    ("data", "prometheus_eval"): ["data.path=benchmark.json", "prompt=finished"],
    ("objective", "tract_official_scaling"): ["batch.micro_batch_size=4", "batch.max_tokens_per_micro_batch=null"],
    ("generation", "openai_server"): ["generation.server.base_url=http://localhost:8000/v1", "judge=base", "compare_to=null"],
    ("objective", "regression_only"): ["pipeline=[stage1,predict,evaluate]"],
    ("data", "columns"): ["data.path=judged.csv", "data.source.columns.instruction=question", "data.source.columns.response=answer"],
}
# Experiments on rows of the user's own need these.
OWN_ROWS = {name: NEEDS["data", "columns"] for name in ("own_data", "own_data_gpu")}
NEEDS |= {("experiment", name): needs for name, needs in OWN_ROWS.items()}
SMALL = ["data.num_workers=0", "batch.micro_batch_size=2", "batch.max_tokens_per_micro_batch=null", "batch.global_batch_size=4"]


@pytest.fixture
def compose_root(tmp_path: Path) -> Compose:
    """Composes the configuration of an entry script."""

    def run(root: str, *overrides: str) -> DictConfig:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            return compose(root, [f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache", *overrides])

    return run


def test_files_are_found() -> None:
    assert {"tract_quickstart", "tract_mistral"} <= set(EXPERIMENTS)
    assert {"model", "data", "objective", "trainer", "debug", "experiment"} <= set(GROUPS)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_builds_and_takes_a_step(name: str, compose_config: Compose) -> None:
    takes_a_step(validate(compose_config(f"experiment={name}", *TINY, *SMALL)))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_stage2_of_an_experiment_validates_and_takes_a_step(name: str, compose_config: Compose) -> None:
    """On annotated CoTs, which have the form of generated ones."""
    resolved = compose_config(f"experiment={name}", *TINY, *SMALL)
    if "stage2" not in resolved.pipeline:
        pytest.skip("its pipeline has no stage 2")
    cfg = validate(stage_config(resolved, "stage2"))
    assert cfg.stage == "stage2"
    assert cfg.objective.use_cot
    if any(resolved.stage2[section] for section in ("objective", "optimizer", "scheduler", "batch", "train")):
        takes_a_step(cfg)  # else all is as in stage 1


@pytest.mark.parametrize("root", ["generate_cot", "evaluate"])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_goes_with_every_entry_script(name: str, root: str, compose_root: Compose) -> None:
    """The experiment decides on all but the stages to run, so that a stage alone makes the product of the whole pipeline."""
    chosen = [f"experiment={name}", *OWN_ROWS.get(name, [])]
    whole, alone = compose_root("train", *chosen), compose_root(root, *chosen, "judge=runs/some/stage1")
    cfg = validate(alone)
    assert cfg.stages == {"generate_cot": ["generate"], "evaluate": ["predict", "evaluate"]}[root]
    before = dict(leaves(OmegaConf.to_container(whole)))
    differing = {key for key, value in leaves(OmegaConf.to_container(alone)) if before[key] != value}
    assert differing <= {"judge", "stages", "compare_to"}
    resolved = OmegaConf.to_container(whole, resolve=True)
    assert masked(resolved) == resolved


def takes_a_step(cfg: Config) -> None:
    data = prepare(cfg)
    module, datamodule = build(cfg, data)
    module.configure_model()
    batch = next(iter(datamodule.train_dataloader()))
    assert len(batch.targets) == cfg.batch.micro_batch_size
    loss = module.training_step(batch, 0)
    assert torch.isfinite(loss)
    loss.backward()  # type: ignore[no-untyped-call]
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in trained)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_header_is_true(name: str, compose_config: Compose) -> None:
    header = "".join(line for line in (CONF / "experiment" / f"{name}.yaml").read_text().splitlines(keepends=True) if line.startswith("#"))
    cfg = validate(compose_config(f"experiment={name}", *OWN_ROWS.get(name, [])))
    assert f"\n# Run: python train.py experiment={name}\n" in header
    assert re.search(r"^# Cost: \S", header, re.MULTILINE)
    assert cfg.run.name == name, "run.name is the run folder's name"
    if base := re.search(r"^# Batch: as (\w+)\.$", header, re.MULTILINE):
        of_base = validate(compose_config(f"experiment={base[1]}"))
        assert (cfg.batch, cfg.trainer) == (of_base.batch, of_base.trainer)
        return
    device, devices = cfg.trainer["accelerator"].upper(), cfg.trainer["devices"]
    if cfg.batch.micro_batch_size is None:
        where = f"{devices} {device}{'s' * (devices > 1)}"
        limit = f"in micro-batches of at most {cfg.batch.max_tokens_per_micro_batch} tokens"
        assert f"\n# Batch: {cfg.batch.global_batch_size} items per optimizer step on {where}, {limit}.\n" in header
        return
    found = re.search(
        r"# Batch: (\d+) items per micro-batch \* (\d+) accumulated \* (\d+) (CPU|GPU)s? = (\d+) items per optimizer step\.", header
    )
    assert found, (
        "no line 'Batch: A items per micro-batch * B accumulated * C GPU = D items per optimizer step.' or 'Batch: as EXPERIMENT.'"
    )
    micro, accumulated, devices, items = (int(found[k]) for k in (1, 2, 3, 5))
    assert micro * accumulated * devices == items
    assert (micro, items, devices) == (cfg.batch.micro_batch_size, cfg.batch.global_batch_size, cfg.trainer["devices"])
    assert found[4].lower() == cfg.trainer["accelerator"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_is_a_diff(name: str, compose_config: Compose) -> None:
    """No key repeats the value that it would have anyway."""
    own = yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text())
    assert own["defaults"][-1] == "_self_"
    base = [entry for entry in own.pop("defaults") if isinstance(entry, str) and entry != "_self_"]
    chosen = compose_config(f"experiment={base[0]}" if base else "seed=0")
    repeated = [key for key, value in leaves(own) if OmegaConf.select(chosen, key) == value and not key.startswith("run.")]
    assert repeated == []


def leaves(node: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    inner = [leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)] for name, value in node.items()]
    return [leaf for part in inner for leaf in part]


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=["/".join(choice) for choice in OPTIONS])
def test_every_option_composes_and_validates(group: str, option: str, compose_config: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    if option == "vllm":  # `make setup` does not install it
        found = importlib.util.find_spec
        monkeypatch.setattr("tract.config.devices.importlib.util.find_spec", lambda name: name == "vllm" or found(name))
    plus = "+" if group == "ablation" else ""  # none is chosen by default
    assert isinstance(validate(compose_config(f"{plus}{group}={option}", *NEEDS.get((group, option), []))), Config)


@pytest.mark.parametrize("debug", names(CONF / "debug"))
@pytest.mark.parametrize("experiment", ["tract_quickstart", "tract_mistral"])
def test_debug_presets_go_with_an_experiment(debug: str, experiment: str, compose_config: Compose) -> None:
    cfg = validate(compose_config(f"experiment={experiment}", f"debug={debug}"))
    assert cfg.run.name == "debug"
    assert list(cfg.logger) == ["csv"]
    assert cfg.stages == {"overfit": ["stage1"], "profile": ["stage1"]}.get(debug), "base and fdr run the whole pipeline"


@pytest.mark.parametrize("experiment", ["tract_quickstart", "tract_mistral"])
def test_the_quick_preset_is_quick_in_every_stage(experiment: str, compose_config: Compose) -> None:
    resolved = compose_config(f"experiment={experiment}", "debug=fdr")
    for stage in ("stage1", "stage2"):
        assert validate(stage_config(resolved, stage)).train.max_steps == 2
    cfg = validate(resolved)
    assert cfg.pipeline == ["stage1", "generate", "stage2", "predict", "evaluate"]
    assert cfg.batch.global_batch_size <= cfg.data.max_train_items <= 16
    assert (cfg.generation.max_cot_tokens, cfg.data.max_val_items, cfg.evaluation.max_items) == (16, 4, 4)


def test_own_columns_are_read_as_mapped(compose_config: Compose) -> None:
    path = CONF.parent / "tests" / "fixtures" / "own_columns.csv"
    columns = {"instruction": "question", "response": "answer", "cot": "comment", "score": "points"}
    mapping = [f"data.source.columns.{field}={column}" for field, column in columns.items()]
    cfg = compose_config("model=tiny", "data=columns", f"data.path={path}", *mapping, "data.val_fraction=0", "train.keep_weights=last")
    with open_dict(cfg):
        cfg.data.source.rubric = {"criteria": "Is it right?", "descriptions": {"1": "Wrong.", "5": "Right."}}
    data = prepare(validate(cfg))
    assert data.counts["examples"] == 3
    example = data.store.example(0)
    assert (example.instruction, example.annotations[0].score) == ('What does "idle" mean?', 5)
    assert example.rubric is not None
    assert example.rubric.descriptions == (("1", "Wrong."), ("5", "Right."))


@pytest.mark.parametrize("data", names(CONF / "data"))
def test_a_data_option_keeps_no_key_of_another(data: str, compose_config: Compose) -> None:
    """Chosen over an experiment's own data, it gives the same section as chosen alone."""
    needs = NEEDS.get(("data", data), [])
    over = compose_config("experiment=tract_mistral", f"data={data}", *needs)
    alone = compose_config(f"data={data}", *needs)
    assert over.data == alone.data


@pytest.mark.parametrize("root", ROOTS)
def test_yaml_and_dataclasses_hold_the_same_keys(root: str, compose_root: Compose) -> None:
    def compare(node: Any, kind: Any, prefix: str) -> list[str]:
        hints = {YAML_NAMES.get(name, name): hint for name, hint in get_type_hints(kind).items()}
        problems = [f"{prefix}{name}: only in YAML" for name in map(str, node) if name not in hints]
        problems += [
            f"{prefix}{name}: only in the dataclass" for name in hints if name not in node and not OmegaConf.is_missing(node, name)
        ]
        return problems + [p for name, hint in hints.items() if is_dataclass(hint) for p in compare(node[name], hint, f"{prefix}{name}.")]

    # For the other options, `validate` refuses keys that are unknown or absent; test_every_option_... runs it on each.
    assert compare(compose_root(root), Config, "") == []


@pytest.mark.parametrize("path", tracked(CONF, "*.yaml"), ids=lambda path: path.relative_to(CONF).as_posix())
def test_file_is_tidy(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    assert isinstance(content, dict), "a YAML file of conf is a mapping"
    if "defaults" in content:
        assert "_self_" in content["defaults"], "the place of _self_ is stated"
    strings = [value for _, leaf in leaves(content) for value in (leaf if isinstance(leaf, list) else [leaf]) if isinstance(value, str)]
    absolute = [value for value in strings if re.search(r"^/|/home/|/mnt/|^~|[A-Za-z]:\\|file:", value)]
    assert absolute == [], "no absolute path: paths/ and oc.env give them"
    assert "\t" not in text
    assert text.endswith("\n")


def test_run_and_sweep_folders_have_no_clock() -> None:
    hydra = yaml.safe_load((CONF / "train.yaml").read_text())["hydra"]
    assert "now:" not in str(hydra)
    assert hydra["output_subdir"] is None
    assert hydra["run"]["dir"] == "."
    assert hydra["job"]["chdir"] is False
