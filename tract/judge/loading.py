"""Where a judge's files are and what they say: an exported folder, a run, any chat model of a folder, the hub or a package."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tract.artifacts.exported_judge import NO_BASE, adapter_digest, exported_judge
from tract.artifacts.fit_stages import FitFolder
from tract.artifacts.judge_choice import Choice
from tract.artifacts.judge_location import ADAPTER, BASE, PACKAGE, locate_judge
from tract.artifacts.judge_settings import SETTINGS_FILE, BaseModel, JudgeSettings
from tract.common.errors import ConfigError
from tract.common.user_paths import expanded
from tract.config.schema import ModelConfig
from tract.inference.chat.requests import check_extra
from tract.inference.sampling import Sampling
from tract.judge.chat_models import chat_settings, template_of
from tract.models.modeling import context_of, load_config, load_tokenizer, locate, model_fingerprint, unpacked
from tract.text.layout import TEMPLATE_DATE, SequenceLayout
from tract.text.prompts import PromptTemplate
from tract.text.score_grid import ScoreGrid

log = logging.getLogger(__name__)

DEFAULT_GRID = ("1", "2", "3", "4", "5")
# Raise it when an answer of a hosted chat model can be read as another score or feedback than before.
_CHAT_RULES = 2
_SAMPLING_OPTIONS = ("temperature", "top_p", "repetition_penalty", "max_cot_tokens")
_SETTING_OPTIONS = ("name", "predictor", "n_cot", "seed", "max_length", "overlong", "least_score_mass", "dtype")


@dataclass(frozen=True)
class JudgeFiles:
    """A judge, not loaded yet.

    Attributes:
        settings: how it works. template, layout, tokenizer: how prompts are worded and scores are written.
        model: the LLM. weights: folder of an adapter or of trained weights that belong on it, or None.
        four_bit: whether the LLM is quantised (QLoRA). model_seed: of weights that are made at random, for tests.
        uncalibrated_by: the option that made the calibration one of other scores, so that it was left out; None for none.
        extra_body: of a hosted judge, the user's own parameters of each request.
        fingerprint: changes when weights, layout, wording or a setting that moves a score does.
    """

    settings: JudgeSettings
    template: PromptTemplate
    layout: SequenceLayout
    tokenizer: Any
    model: ModelConfig
    weights: Path | None
    four_bit: bool
    model_seed: int
    fingerprint: str
    uncalibrated_by: str | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)


def open_judge_files(
    path_or_hub_id: str | Path,
    *,
    revision: str | None = None,
    base_model: str | None = None,
    grid: Sequence[Any] | None = None,
    prompt: str | Path | Mapping[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    trust_remote_code: bool = False,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    stage: str | None = None,
    variant: str | None = None,
    best: str | None = None,
    **changed: Any,
) -> JudgeFiles:
    """Finds a judge and reads its settings; loads no weights.

    Args:
        path_or_hub_id: an exported folder, the folder of a run or of a fit stage, a chat model's folder or hub id, or
            "package:NAME" for a GGUF file in an installed Python package; see ``tract.artifacts.judge_location.locate_judge``.
        revision: commit, tag or branch on the hub. base_model: what an adapter belongs on, in place of what the settings say.
        grid: the scores, in place of those of the settings; a trained judge was trained on its own.
        prompt: wording for a chat model: a template text with {instruction}, {response}, {rubric}, {reference_answer} as prometheus-eval
            has it, a YAML file, or a mapping of the fields of ``PromptTemplate``.
        cache_dir: for what has to be unpacked. trust_remote_code: run code that comes with the model.
        chat_template_kwargs: of a chat model's template, e.g. {"enable_thinking": False} for Qwen 3.
        stage, variant, best: which judge of a folder of runs is meant: "stage1", "stage2" or the key of one; the name of a job of a sweep;
            the validation metric to choose by, e.g. "val/rmse".
        changed: settings to change: name, predictor, n_cot, seed, max_length, overlong, least_score_mass, dtype, temperature, top_p,
            repetition_penalty, max_cot_tokens; None leaves a setting as it is.

    Raises:
        ConfigError: if there is no judge, or a setting cannot be used.
    """
    where = _Where(_spec(path_or_hub_id), revision, cache_folder(cache_dir), trust_remote_code)
    base_model = None if base_model is None else expanded(str(base_model), "base_model")
    found = _trained(where, base_model, Choice(stage, variant, best)) or _chat_model(where)
    return _completed(found, grid, prompt, changed, chat_template_kwargs or {})


def hosted_judge(
    model: str | Path,
    *,
    grid: Sequence[Any] | None = None,
    prompt: str | Path | Mapping[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    extra_body: Mapping[str, Any] | None = None,
    **changed: Any,
) -> JudgeFiles:
    """A chat model that somebody hosts, of which nothing is here: it is asked with texts, as chat models are.

    Args:
        model: its name there. extra_body: further parameters of each request, as the server knows them, e.g. {"reasoning_effort": "low"}.
        chat_template_kwargs: the parameter of that name, which vLLM and its like take. The others as in ``open_judge_files``.

    Raises:
        ConfigError: if a setting cannot be used.
    """
    extra = _extra_body(extra_body, chat_template_kwargs)
    where = _Where(_named(model), None, cache_folder(cache_dir), trust_remote_code=False)
    settings = chat_settings(BaseModel(str(model)))
    # The protocol has no repetition penalty, and the length of prompts is the host's to limit.
    settings = replace(settings, sampling=replace(settings.sampling, repetition_penalty=1.0), max_length=None)
    # Its tokens are not known; these are never sent.
    stand_in = where.model("assets/tiny", package="tract")
    files = _completed(_Found(settings, stand_in, None, hosted=True), grid, prompt, changed, {})
    parts = "\n".join([files.fingerprint, f"read by rules {_CHAT_RULES}", json.dumps(extra, sort_keys=True)])
    return replace(files, extra_body=extra, fingerprint=hashlib.sha256(parts.encode()).hexdigest())


def _extra_body(given: Mapping[str, Any] | None, chat_template_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """The user's own parameters of a request."""
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError(f"extra_body: found a {type(given).__name__}; a mapping of parameters is accepted")
    extra = dict(given or {})
    if chat_template_kwargs:
        if "chat_template_kwargs" in extra:
            raise ConfigError("extra_body.chat_template_kwargs: is given as chat_template_kwargs too; give it once")
        extra["chat_template_kwargs"] = dict(chat_template_kwargs)
    check_extra(extra)
    try:
        json.dumps(extra, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"extra_body: is not valid JSON ({error}); text, finite numbers, true, false, null, lists and mappings are accepted"
        ) from None
    return extra


def _spec(judge: str | Path) -> str:
    """What the user gave for a judge, with ``~`` expanded."""
    return expanded(_named(judge), "judge")


def _named(judge: str | Path) -> str:
    if not isinstance(judge, (str, Path)) or not str(judge).strip():
        raise ConfigError(f"judge: {judge!r} names no judge; give an exported judge, a run, a chat model's folder or hub id")
    return str(judge)


def _completed(
    found: _Found,
    grid: Sequence[Any] | None,
    prompt: str | Path | Mapping[str, Any] | None,
    changed: Mapping[str, Any],
    chat_template_kwargs: Mapping[str, Any],
) -> JudgeFiles:
    """The files of a judge with the user's wording, scores and settings."""
    if unknown := [name for name in changed if name not in (*_SAMPLING_OPTIONS, *_SETTING_OPTIONS)]:
        raise ConfigError(f"{unknown[0]}: unknown option of a judge; accepted are {', '.join((*_SETTING_OPTIONS, *_SAMPLING_OPTIONS))}")
    worded = found.settings if prompt is None else replace(found.settings, prompt=template_of(prompt))
    tokenizer = load_tokenizer(found.model)
    layout = _layout(worded, tokenizer, grid, chat_template_kwargs, rebuilt=prompt is not None)
    fixed = worded.fixed_grid or grid is not None
    settings = _changed(replace(worded, layout=layout.to_dict(), fixed_grid=fixed, max_length=_length(found, changed)), changed)
    other = _other_scores(found.settings, settings)
    if other is not None:
        settings = replace(settings, calibration=None)
    model = replace(found.model, dtype=settings.dtype)
    # What the date moves is part of the layout.
    left_out = ("name", "training", "metrics", "calibration", "template_date")
    moved = {name: value for name, value in settings.to_dict().items() if name not in left_out}
    seed_llm = model_fingerprint(model, found.seed, leave_out=(SETTINGS_FILE, "README.md"), named=found.named)
    parts = [seed_llm, found.trained, layout.fingerprint, json.dumps(moved)]
    fingerprint = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return JudgeFiles(settings, settings.prompt, layout, tokenizer, model, found.weights, found.four_bit, found.seed, fingerprint, other)


def _other_scores(saved: JudgeSettings, settings: JudgeSettings) -> str | None:
    """The option that makes scores others than those that the judge's calibration was fitted on; None if there is none."""
    if saved.calibration is None:
        return None
    changed = {
        "prompt": saved.prompt != settings.prompt,
        "grid": list(saved.layout["grid"]) != list(settings.layout["grid"]),
        "predictor": saved.predictor != settings.predictor,
    }
    return next((name for name, is_other in changed.items() if is_other), None)


def _length(found: _Found, changed: Mapping[str, Any]) -> int | None:
    """The longest sequence: the settings', as far as the model is made for it; None for any.

    Raises:
        ConfigError: if the user wants longer ones.
    """
    if found.hosted:
        return found.settings.max_length
    positions = context_of(found.model)
    asked = changed.get("max_length")
    if positions and isinstance(asked, int) and asked > positions:
        raise ConfigError(f"max_length: {asked} tokens are more than {found.model.name_or_path} is made for ({positions}); give fewer")
    return min((length for length in (found.settings.max_length, positions) if length is not None), default=None)


@dataclass(frozen=True)
class _Where:
    """What the user said of where the judge is."""

    spec: str
    revision: str | None
    cache: Path
    trust_remote_code: bool

    def model(self, name: str, *, package: str | None = None, revision: str | None = None) -> ModelConfig:
        """A model to load; the dtype is set when it is known."""
        return _with_pad(
            ModelConfig(
                name_or_path=name,
                package=package,
                revision=revision,
                tokenizer_name_or_path=None,
                random_init=False,
                dtype="float32",
                attn_implementation=None,
                pad_token=None,
                chat_template=None,
                chat_template_kwargs={},
                template_date=TEMPLATE_DATE,
                gradient_checkpointing=False,
                trust_remote_code=self.trust_remote_code,
                unpacked=str(self.cache),
            )  # fmt: skip
        )


@dataclass(frozen=True)
class _Found:
    """Settings, model, the folder of what belongs on it, and ``trained``: a fingerprint of what is there; empty where that is nothing.

    ``named`` is what a run calls its base model, which may be found in another place now.
    """

    settings: JudgeSettings
    model: ModelConfig
    weights: Path | None
    trained: str = ""
    four_bit: bool = False
    seed: int = 0
    hosted: bool = False
    named: str | None = None


def _trained(where: _Where, base_model: str | None, choice: Choice) -> _Found | None:
    """The judge of an exported folder, on this disk or on the hub, or of a run; None where there are no settings of one."""
    location = locate_judge(where.spec, choice)
    if location.kind == BASE:
        raise ConfigError("judge: 'base' is the base model of a configuration, which evaluate.py knows; give its folder or hub id")
    if location.fit is not None:
        return _of_run(location.fit, where, base_model)
    if location.kind == ADAPTER:
        return _of_adapter(location.path, where, base_model)
    found = exported_judge(location, revision=where.revision, base_model=base_model)
    if found is None:
        return None
    if found.adapter is None:
        return _Found(found.settings, where.model(found.model.name_or_path, revision=found.model.revision), None)
    model = _base_model(found.model, where, location.path)
    return _Found(found.settings, model, found.adapter, found.trained, named=found.settings.base_model.name_or_path)


def _base_model(base: BaseModel, where: _Where, adapter: Path) -> ModelConfig:
    """The configuration of an adapter's base model.

    Raises:
        ConfigError: if it is neither here nor on the hub.
    """
    try:
        model = where.model(base.name_or_path, package=base.package, revision=base.revision)
        load_config(model, locate(model))
        return model
    except ConfigError as error:
        if base.package is not None or Path(base.name_or_path).exists():
            raise
        raise ConfigError(
            f"base_model: the adapter {adapter} belongs on {base.name_or_path!r}, neither a folder here nor found on the hub; {NO_BASE} "
            f"({error})"
        ) from error


def _of_run(stage: FitFolder, where: _Where, base_model: str | None) -> _Found:
    from tract.judge.runs import judge_of_stage

    run = judge_of_stage(stage, trust_remote_code=where.trust_remote_code, cache=where.cache, base_model=base_model)
    return _Found(run.settings, run.model, run.weights, run.fingerprint, run.four_bit, run.seed, named=run.named)


def _of_adapter(folder: Path, where: _Where, base_model: str | None) -> _Found:
    """An adapter of PEFT that was trained elsewhere, on a chat model: asked as one, since nothing says how it was trained."""
    if base_model is None:
        raise ConfigError(
            f"{folder}: holds an adapter without {SETTINGS_FILE}, so nothing says what it was trained on; {NO_BASE}, or merge it into its "
            "base model"
        )
    base = BaseModel(base_model)
    return _Found(replace(chat_settings(base), adapter=True), where.model(base_model), folder, adapter_digest(folder))


def _chat_model(where: _Where) -> _Found:
    """A chat model of a package, a folder or the hub."""
    if where.spec.startswith(PACKAGE):
        package, _, pattern = where.spec.removeprefix(PACKAGE).partition("/")
        base = BaseModel(pattern or "*.gguf", package)
    else:
        base = BaseModel(where.spec, revision=None if Path(where.spec).exists() else where.revision)
    return _Found(chat_settings(base), where.model(base.name_or_path, package=base.package, revision=base.revision), None)


def _with_pad(model: ModelConfig) -> ModelConfig:
    """The model with a pad token: its own, else one that ends its turns, since nothing is ever padded here."""
    try:
        load_tokenizer(model)
    except ConfigError as error:
        if not str(error).startswith("model.pad_token"):
            raise
        from transformers import AutoTokenizer

        source = unpacked(model, locate(model))
        tokenizer = AutoTokenizer.from_pretrained(source.location, revision=model.revision, trust_remote_code=False, **source.kwargs)
        return replace(model, pad_token=tokenizer.eos_token or tokenizer.unk_token)
    return model


def _layout(
    settings: JudgeSettings, tokenizer: Any, grid: Sequence[Any] | None, kwargs: Mapping[str, Any], *, rebuilt: bool
) -> SequenceLayout:
    """The saved layout, or a new one where wording or grid are the user's."""
    if settings.layout and not rebuilt:
        layout = SequenceLayout.from_dict(tokenizer, dict(settings.layout))
        return layout if grid is None else with_grid(layout, _labels(grid))
    labels = _labels(grid) if grid is not None else tuple(settings.layout.get("grid", DEFAULT_GRID))
    return SequenceLayout.build(
        tokenizer,
        system=bool(settings.prompt.system),
        cue=settings.prompt.cue,
        grid=ScoreGrid(labels),
        chat_template_kwargs=dict(kwargs),
        template_date=settings.template_date,
    )


def with_grid(layout: SequenceLayout, labels: tuple[str, ...]) -> SequenceLayout:
    """The same layout for other scores.

    Raises:
        ConfigError: if the labels are no grid, or the tokenizer cannot tell them apart.
    """
    return SequenceLayout(layout.tokenizer, layout.scaffold, layout.end_id, layout.cue, ScoreGrid(labels))


def _labels(grid: Sequence[Any]) -> tuple[str, ...]:
    if isinstance(grid, str) or not isinstance(grid, (Sequence, range)):
        raise ConfigError(f"grid: found {grid!r}; a list of scores is accepted, e.g. [1, 2, 3]")
    return tuple(str(label) for label in grid)


def _changed(settings: JudgeSettings, changed: Mapping[str, Any]) -> JudgeSettings:
    given = {name: value for name, value in changed.items() if value is not None}
    sampling = sampling_with(settings.sampling, {name: given[name] for name in _SAMPLING_OPTIONS if name in given})
    return replace(settings, sampling=sampling, **{name: given[name] for name in _SETTING_OPTIONS if name in given})


def sampling_with(sampling: Sampling, changed: Mapping[str, Any]) -> Sampling:
    """The sampling with some of it changed.

    Raises:
        ConfigError: if a value is no number, or none that can be used.
    """
    for name, value in changed.items():
        whole = name == "max_cot_tokens"
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise ConfigError(f"{name}: {value!r} is not a {'whole ' if whole else ''}number")
    return replace(sampling, **changed)


def cache_folder(given: str | Path | None) -> Path:
    """Where files are written that other formats are unpacked to."""
    if given is not None:
        return Path(expanded(str(given), "cache_dir"))
    if found := os.environ.get("TRACT_CACHE"):
        return Path(expanded(found, "TRACT_CACHE"))
    return Path(os.environ.get("XDG_CACHE_HOME") or expanded("~/.cache", "cache_dir")) / "tract"
