"""A run's judge as a product: everything that ``judge_config.json`` says, taken from the files of the stage that trained it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tract.artifacts.fit_stages import FitFolder
from tract.artifacts.judge_choice import Choice
from tract.artifacts.judge_files import JudgeFiles
from tract.artifacts.judge_loader import trained_judge
from tract.artifacts.judge_location import HUB, locate_judge
from tract.artifacts.judge_settings import LEAST_SCORE_MASS, BaseModel, JudgeSettings
from tract.artifacts.products import read_manifest
from tract.artifacts.recorded_paths import places_of
from tract.artifacts.template_recovery import Recovered, recover_template
from tract.common.errors import ConfigError, DataError
from tract.common.masking import masked
from tract.config.renames import upgraded_config
from tract.config.schema import ModelConfig, with_added_keys
from tract.evaluation.predictors import OF_COTS
from tract.inference.sampling import Sampling
from tract.models.locating import context_of

log = logging.getLogger(__name__)

RAIL = "rail"
_NO_CHOICE = Choice()
_OBJECTIVE_FACTS = ("ce_weight", "score_loss", "lambda", "ce_on_score", "use_cot", "train_on_ratings", "normalize", "score_loss_scaling")
_TRAINING_FACTS = ("optimizer_steps", "trained_parameters", "processes", "exported", "final_metrics")


def run_judge(folder: Path | str, *, choice: Choice = _NO_CHOICE, **options: Any) -> JudgeFiles:
    """The judge of a fit stage's folder, or of a run's folder.

    Args:
        folder: stage1-KEY, stage2-KEY, or one of runs. choice: which judge is meant, where it holds several.
        options: as in ``judge_of_stage``.

    Raises:
        ConfigError, DataError: if there is no such judge, or several, its files are damaged, or it needs code that may not run.
    """
    found = locate_judge(str(folder), choice)
    if found.fit is None:
        what = f"there is no folder {str(folder)!r}" if found.kind == HUB else f"{folder} is {found.kind} and no run's"
        raise ConfigError(f"judge: {what}; give the folder of a run (runs/NAME/seed0) or of a fit stage (stage2-KEY)")
    return judge_of_stage(found.fit, **options)


def judge_of_stage(
    stage: FitFolder,
    *,
    trust_remote_code: bool = False,
    cache: Path | None = None,
    data: Path | None = None,
    name: str | None = None,
    base_model: str | None = None,
) -> JudgeFiles:
    """The judge of a fit stage.

    A judge that was trained on finished prompts gets the template that fills them in, where its training data is at hand.

    Args:
        stage: where it is. trust_remote_code: whether code that came with its base model may run.
        cache: folder for unpacked GGUF files, None for none; examples of the training are looked for there too.
        data: rows as those that it was trained on, see ``training_rows``.
        name: what it is called; None for the run's name.
        base_model: where its base model is; None for where the run found it.

    Raises:
        ConfigError, DataError: if its files are damaged, or it needs code that may not run.
    """
    unpacked = None if cache is None else str(cache)
    judge = trained_judge(stage, trust_remote_code=trust_remote_code, unpacked=unpacked, base_model=base_model)
    manifest, _ = read_manifest(stage.path)
    try:
        config = _run_config(stage.path)
        settings = _settings(stage, judge, manifest, config, name)
        fingerprint = str(manifest["data"]["source"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{stage.path}: {_one_line_reason(error)}; its config.yaml or manifest.json is not that of a fit stage") from error
    if judge.template.source == "finished":
        from tract.data.training_rows import training_rows  # loads datasets, which no other judge needs

        kept = (config.get("paths") or {}).get("cache")
        caches = [*([cache] if cache else []), *(places_of(str(kept), stage.path, manifest) if kept else [])]
        place = partial(places_of, folder=stage.path, manifest=manifest)
        rows = training_rows(config, fingerprint, judge.layout.grid, caches=caches, data=data, places=place)
        settings = _with_template(settings, recover_template(judge.template, rows, judge.layout.grid))
    return replace(judge, own_settings=settings)


def _settings(
    stage: FitFolder, judge: JudgeFiles, manifest: Mapping[str, Any], config: Mapping[str, Any], name: str | None
) -> JudgeSettings:
    """How the judge of a stage works, as its run was configured.

    Raises:
        ConfigError, KeyError, TypeError, ValueError: if the configuration or the manifest is not that of a fit stage.
    """
    assert judge.weights is not None, "a fit stage leaves weights"
    return JudgeSettings(
        name=name or stage.name or str(manifest.get("run") or stage.path.name),
        prompt=judge.template,
        layout=judge.layout.to_dict(),
        use_cot=judge.use_cot,
        predictor=_grading_predictor(str(config["evaluation"]["main_predictor"])),
        # 0 leaves nothing but the reading without a CoT, which is one.
        n_cot=max(1, int(config["evaluation"]["n_cot"])),
        sampling=_sampling(config["generation"]),
        seed=judge.seed,
        # What bounds a prompt in all stages; ``data.max_length`` bounds what was trained on.
        max_length=context_of(judge.model),
        overlong="shorten" if config["data"]["truncation"] == "shorten" else "refuse",
        shorten=tuple(config["data"]["shorten"]),
        least_score_mass=LEAST_SCORE_MASS,
        dtype=judge.model.dtype,
        adapter=(judge.weights / "adapter_config.json").is_file(),
        base_model=base_model_of(judge.model),
        training=_training_facts(manifest, config),
        template_date=judge.model.template_date,
    )


def base_model_of(model: ModelConfig) -> BaseModel:
    """What a judge was made from, without a path of this machine."""
    return BaseModel(shown_name(model.name_or_path), model.package, model.revision)


def shown_name(name: str) -> str:
    """A hub id as it is; of a path the last part, since the rest says nothing elsewhere."""
    path = Path(name)
    is_path = path.is_absolute() or name.startswith((".", "~")) or path.exists()
    return str(masked(path.name if is_path else name))


def _run_config(folder: Path) -> dict[str, Any]:
    try:
        content = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"), resolve=True)
    except (OSError, OmegaConfBaseException) as error:
        raise ConfigError(f"config.yaml: {_one_line_reason(error)}") from error
    if not isinstance(content, dict):
        raise ConfigError("config.yaml: no configuration")
    return upgraded_config({str(key): value for key, value in content.items()})


def _one_line_reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"the key {text} is missing" if isinstance(error, KeyError) else text


def _grading_predictor(name: str) -> str:
    """The predictor that the run was evaluated by, if a grade can be read so."""
    return name if name in OF_COTS else RAIL


def _sampling(generation: Mapping[str, Any]) -> Sampling:
    return Sampling(
        float(generation["temperature"]),
        float(generation["top_p"]),
        float(generation["repetition_penalty"]),
        int(generation["max_cot_tokens"]),
    )


def _training_facts(manifest: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Facts for people, without secrets and without paths of this machine."""
    source = config["data"]["source"]
    kind = str(source["_target_"]).rpartition(".")[2]
    path = config["data"].get("path") or source.get("path")
    objective = with_added_keys(config["objective"], "objective.")
    facts = {
        "run": manifest.get("run"),
        "stage": manifest.get("stage"),
        "seed": manifest.get("seed"),
        "finished": manifest.get("finished"),
        "data": {
            "source": kind,
            "name": shown_name(str(path)) if path else kind,
            "fingerprint": manifest["data"]["source"],
            "counts": manifest["data"]["counts"],
        },
        "prompts": config["prompt"]["source"],
        "self_generated_cots": "generate" in manifest.get("parents", {}),
        "objective": {key: objective[key] for key in _OBJECTIVE_FACTS if key in objective},
        "adapter": config["adapter"]["kind"],
        **{key: manifest["training"][key] for key in _TRAINING_FACTS if key in manifest["training"]},
        "product": manifest.get("fingerprint"),
        "commit": manifest.get("commit"),
        "versions": manifest.get("versions"),
    }
    shown: dict[str, Any] = masked(facts)
    return shown


def _with_template(settings: JudgeSettings, found: Recovered) -> JudgeSettings:
    """The settings with the template behind the finished prompts, if it was found."""
    facts = {**settings.training, "wording": {"rows": found.rows, "equal": found.equal, "recovered": found.template is not None}}
    if found.template is None:
        why = f"no template gives back more than {found.equal} of {found.rows} of them" if found.rows else "its training data is not here"
        log.warning(
            "%s: trained on finished prompts, and %s; it can only grade finished prompts (--data FILE names rows to recover it from)",
            settings.name,
            why,
        )
        return replace(settings, training=facts)
    return replace(settings, prompt=found.template, training=facts)
