"""A judge by itself, without a pipeline's configuration: an exported folder, a run, any chat model of a folder, the hub or a package.

What the user says about wording, scores and settings replaces what the judge's own files say.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tract.artifacts.chat_models import chat_settings
from tract.artifacts.exported_judge import NO_BASE, ExportedJudge
from tract.artifacts.fit_stages import FitFolder
from tract.artifacts.judge_choice import Choice
from tract.artifacts.judge_files import JudgeFiles, joint_digest
from tract.artifacts.judge_loader import NOT_WEIGHTS, JudgeLoader
from tract.artifacts.judge_location import BASE, JudgeLocation, locate_judge
from tract.artifacts.judge_options import JudgeOptions
from tract.artifacts.judge_settings import SETTINGS_FILE, BaseModel, JudgeSettings
from tract.artifacts.run_judges import judge_of_stage
from tract.common.errors import ConfigError
from tract.common.user_paths import expanded
from tract.config.schema import ModelConfig
from tract.inference.chat.requests import check_extra
from tract.models.adapter_digest import adapter_digest
from tract.models.locating import load_config, locate, model_fingerprint
from tract.models.tokenizers import load_tokenizer
from tract.text.chat_template import TEMPLATE_DATE

# Raise it when an answer of a hosted chat model can be read as another score or feedback than before.
_CHAT_RULES = 2
# Settings that move no score; what the date moves is part of the layout.
_IMMATERIAL_SETTINGS = ("name", "training", "metrics", "calibration", "template_date")


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
    spec = expanded(_judge_name(path_or_hub_id), "judge")
    model = _model_like(cache_folder(cache_dir), trust_remote_code)
    base = None if base_model is None else expanded(str(base_model), "base_model")
    found = locate_judge(spec, Choice(stage, variant, best))
    if found.kind == BASE:
        raise ConfigError("judge: 'base' is the base model of a configuration, which evaluate.py knows; give its folder or hub id")
    return _StandaloneLoader(model, JudgeOptions(grid, prompt, chat_template_kwargs or {}, changed), revision, base).open(found)


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
    settings = chat_settings(BaseModel(_judge_name(model)))
    # The protocol has no repetition penalty, and the length of prompts is the host's to limit.
    settings = replace(settings, sampling=replace(settings.sampling, repetition_penalty=1.0), max_length=None)
    loader = _StandaloneLoader(_model_like(cache_folder(cache_dir), trust_remote_code=False), JudgeOptions(grid, prompt, {}, changed))
    # Its tokens are not known; these are never sent.
    stand_in = loader.model(BaseModel("assets/tiny", package="tract"))
    files = loader.completed(settings, stand_in, hosted=True)
    fingerprint = joint_digest(files.fingerprint, f"read by rules {_CHAT_RULES}", json.dumps(extra, sort_keys=True))
    return replace(files, extra_body=extra, fingerprinted=lambda: fingerprint)


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


def _judge_name(judge: str | Path) -> str:
    """What the user gave for a judge.

    Raises:
        ConfigError: if it is no text, or blank.
    """
    if not isinstance(judge, (str, Path)) or not str(judge).strip():
        raise ConfigError(f"judge: {judge!r} names no judge; give an exported judge, a run, a chat model's folder or hub id")
    return str(judge)


def _model_like(cache: Path, trust_remote_code: bool) -> ModelConfig:
    """How models are loaded; name and dtype are set when they are known."""
    return ModelConfig(
        name_or_path="",
        package=None,
        revision=None,
        tokenizer_name_or_path=None,
        random_init=False,
        dtype="float32",
        attn_implementation=None,
        pad_token=None,
        chat_template=None,
        chat_template_kwargs={},
        template_date=TEMPLATE_DATE,
        gradient_checkpointing=False,
        trust_remote_code=trust_remote_code,
        unpacked=str(cache),
    )


class _StandaloneLoader(JudgeLoader):
    """Judges by themselves: what was not trained as one is asked as chat models are."""

    def __init__(self, like: ModelConfig, options: JudgeOptions, revision: str | None = None, base_model: str | None = None) -> None:
        super().__init__(like, pad_with_end=True, revision=revision, base_model=base_model)  # nothing is ever padded here
        self._options = options

    def of_run(self, stage: FitFolder) -> JudgeFiles:
        cache = Path(str(self.like.unpacked))
        run = judge_of_stage(stage, trust_remote_code=self.like.trust_remote_code, cache=cache, base_model=self.base_model)
        return self.completed(run.settings, run.model, run.weights, run.trained_digest, run.named, run)

    def of_adapter(self, folder: Path) -> JudgeFiles:
        if self.base_model is None:
            raise ConfigError(
                f"{folder}: holds an adapter without {SETTINGS_FILE}, so nothing says what it was trained on; {NO_BASE}, or merge it into "
                "its base model"
            )
        base = BaseModel(self.base_model)
        return self.completed(replace(chat_settings(base), adapter=True), self.model(base), folder, adapter_digest(folder))

    def of_export(self, exported: ExportedJudge, found: JudgeLocation) -> JudgeFiles:
        settings, adapter = exported.settings, exported.adapter
        if adapter is None:
            return self.completed(settings, self.model(exported.model))
        model = self._base_of(exported.model, found.path)
        return self.completed(settings, model, adapter, adapter_digest(adapter), settings.base_model.name_or_path)

    def untrained(self, base: BaseModel) -> JudgeFiles:
        return self.completed(chat_settings(base), self.model(base))

    def _base_of(self, base: BaseModel, adapter: Path) -> ModelConfig:
        """The configuration of an adapter's base model.

        Raises:
            ConfigError: if it is neither here nor on the hub.
        """
        try:
            model = self.model(base)
            load_config(model, locate(model))
            return model
        except ConfigError as error:
            if base.package is not None or Path(base.name_or_path).exists():
                raise
            raise ConfigError(
                f"base_model: the adapter {adapter} belongs on {base.name_or_path!r}, neither a folder here nor found on the hub; "
                f"{NO_BASE} ({error})"
            ) from error

    def completed(
        self,
        saved: JudgeSettings,
        model: ModelConfig,
        weights: Path | None = None,
        trained: str = "",
        named: str | None = None,
        run: JudgeFiles | None = None,
        *,
        hosted: bool = False,
    ) -> JudgeFiles:
        """The files of a judge with the user's wording, scores and settings.

        Args:
            saved: its own settings. model: the LLM. weights: folder of what belongs on it. trained: distinguishes that from others.
            named: what its files call the LLM, which may be found in another place now. run: the judge as its run left it.
            hosted: whether the LLM only stands in for one that is not here.

        Raises:
            ConfigError: if a setting cannot be used.
        """
        # That of the LLM, also where an adapter lies beside a copy: fingerprints of graded files hold it.
        tokenizer = load_tokenizer(model)
        settings, layout, uncalibrated_by = self._options.applied(saved, model, tokenizer, hosted=hosted)
        model = replace(model, dtype=settings.dtype)
        seed = 0 if run is None else run.seed
        moved = {name: value for name, value in settings.to_dict().items() if name not in _IMMATERIAL_SETTINGS}
        llm = model_fingerprint(model, seed, leave_out=NOT_WEIGHTS, named=named)
        fingerprint = joint_digest(llm, trained, layout.fingerprint, json.dumps(moved))
        return JudgeFiles(
            name=settings.name,
            fingerprinted=lambda: fingerprint,
            model=model,
            weights=weights,
            tokenizer=tokenizer,
            layout=layout,
            template=settings.prompt,
            seed=seed,
            four_bit=run is not None and run.four_bit,
            use_cot=settings.use_cot,
            named=named,
            folder=weights,
            own_stage=None if run is None else run.own_stage,
            own_settings=settings,
            uncalibrated_by=uncalibrated_by,
        )


def cache_folder(given: str | Path | None) -> Path:
    """Where files are written that other formats are unpacked to."""
    if given is not None:
        return Path(expanded(str(given), "cache_dir"))
    if found := os.environ.get("TRACT_CACHE"):
        return Path(expanded(found, "TRACT_CACHE"))
    return Path(os.environ.get("XDG_CACHE_HOME") or expanded("~/.cache", "cache_dir")) / "tract"
