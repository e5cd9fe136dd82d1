"""Which judge a stage works with: a run's, an exported one, a Hugging Face model or the base model, with its own prompt, cue and grid."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from tract.artifacts.exported_judge import ExportedJudge, adapter_digest, exported_judge
from tract.artifacts.judge_location import ADAPTER, BASE, FIT, IN_PACKAGE, PACKAGE, JudgeLocation, locate_judge
from tract.artifacts.judge_settings import SETTINGS_FILE
from tract.artifacts.products import open_product
from tract.artifacts.recorded_paths import found_base
from tract.common.errors import ConfigError, DataError
from tract.common.model_name import model_name
from tract.config.schema import Config, ModelConfig
from tract.models.base_layout import base_layout
from tract.models.locating import in_folder, model_fingerprint
from tract.models.tokenizers import load_tokenizer
from tract.text.chat_template import TEMPLATE_DATE
from tract.text.layout import SequenceLayout
from tract.text.prompts import PromptTemplate


@dataclass(frozen=True)
class Judge:
    """A judge, not loaded yet.

    Attributes:
        name: what it is called in tables.
        fingerprinted: gives ``fingerprint``.
        model: the base model. weights: folder of what was trained, or None. four_bit: whether the base model is quantised (QLoRA).
        tokenizer, layout, template: how prompts are worded and scores are written; those that it was trained with.
        seed: of the base model's weights where they are made at random; the one that it was trained on, not today's.
        use_cot: whether it was trained to write feedback before the score.
        named: what its run calls the base model, where that is found in another place now; None for ``model.name_or_path``.
        folder: where a judge is that was trained; None for a model as it came.
    """

    name: str
    fingerprinted: Callable[[], str] = field(repr=False, compare=False)
    model: ModelConfig
    weights: Path | None
    four_bit: bool
    tokenizer: Any
    layout: SequenceLayout
    template: PromptTemplate
    seed: int
    use_cot: bool = True
    named: str | None = None
    folder: Path | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Changes when its weights, tokenizer or layout do. Read from its files when it is asked for, which few of many ranks do."""
        return self.fingerprinted()

    @property
    def model_name(self) -> str:
        """What the base model is called in reports."""
        return model_name(self.named or self.model.name_or_path, self.model.package)


def find_judge(spec: str, cfg: Config) -> Judge:
    """The judge of a run, an exported one, a model, an adapter on the configured base model, or that LLM itself (``seed``).

    Args:
        spec: see ``tract.artifacts.judge_location.locate_judge``.

    Raises:
        ConfigError, DataError: if there is none, or more than one, or its files are damaged.
    """
    found = locate_judge(spec)
    if found.kind == BASE:
        return _base_judge(cfg)
    if found.kind == FIT:
        return trained_judge(found.path, trust_remote_code=cfg.model.trust_remote_code, unpacked=cfg.model.unpacked)
    if found.kind == ADAPTER:
        return _adapter_judge(found.path, cfg)
    if (exported := exported_judge(found)) is not None:
        return _exported_judge(exported, found, cfg)
    return _model_judge(found, cfg)


def with_exact_judges(resolved: DictConfig, cfg: Config) -> DictConfig:
    """The configuration with the folder of a fit stage in place of a run's, for ``judge`` and ``compare_to``.

    What is made meanwhile may be linked into the folder of that very run.

    Raises:
        ConfigError: if one names no judge, or several.
    """
    exact = resolved
    for key, spec in (("judge", cfg.judge), ("compare_to", cfg.compare_to)):
        if spec is None or spec in (BASE, "stage1"):
            continue
        found = locate_judge(spec)
        if found.fit is not None and found.fit.run is not None:
            exact = exact.copy()
            with open_dict(exact):
                exact[key] = str(found.path)
    return exact


def _model(cfg: Config, name: str, *, package: str | None = None, revision: str | None = None) -> ModelConfig:
    """Another model, used as the configuration says."""
    model = replace(
        cfg.model, name_or_path=name, package=package, revision=revision, tokenizer_name_or_path=None, random_init=False, pad_token=None
    )
    return _with_pad(model, cfg)


def _model_judge(found: JudgeLocation, cfg: Config) -> Judge:
    """A model that was not trained as a judge, with the configured prompt."""
    package, name = None, found.spec
    if found.kind == IN_PACKAGE:
        package, _, pattern = found.spec.removeprefix(PACKAGE).partition("/")
        name = pattern or "*.gguf"
    judge = _base_judge(replace(cfg, model=_model(cfg, name, package=package)))
    return replace(judge, name=model_name(Path(name).name, package))


def _exported_judge(found: ExportedJudge, location: JudgeLocation, cfg: Config) -> Judge:
    """An exported judge, with its own prompt, cue and grid."""
    settings, base = found.settings, found.model
    model = replace(_model(cfg, base.name_or_path, package=base.package, revision=base.revision), dtype=settings.dtype, chat_template=None)
    tokenizer = load_tokenizer(model if found.adapter is None else in_folder(model, found.adapter))
    layout = SequenceLayout.from_dict(tokenizer, dict(settings.layout))

    def fingerprinted() -> str:
        # Whatever its card and its settings say beside what is read here, the judge is the same.
        llm = model_fingerprint(model, settings.seed, leave_out=(SETTINGS_FILE, "README.md"), named=settings.base_model.name_or_path)
        return _joined(llm, found.trained, layout.fingerprint, repr(settings.prompt))

    return Judge(
        settings.name, fingerprinted, model, found.adapter, False, tokenizer, layout, settings.prompt, settings.seed, settings.use_cot,
        settings.base_model.shown, location.path,
    )  # fmt: skip


def _with_pad(model: ModelConfig, cfg: Config) -> ModelConfig:
    """The model with its own pad token, or the configured one where it has none."""
    try:
        load_tokenizer(model)
    except ConfigError as error:
        if not str(error).startswith("model.pad_token") or cfg.model.pad_token is None:
            raise
        return replace(model, pad_token=cfg.model.pad_token)
    return model


def _base_judge(cfg: Config) -> Judge:
    tokenizer, layout, template = base_layout(cfg)

    def fingerprinted() -> str:
        return _joined(model_fingerprint(cfg.model, cfg.seed), layout.fingerprint, repr(template))

    return Judge(BASE, fingerprinted, cfg.model, None, False, tokenizer, layout, template, cfg.seed)


def _adapter_judge(folder: Path, cfg: Config) -> Judge:
    """An adapter that PEFT wrote elsewhere, on the configured base model, with the configured prompt."""
    seed = _base_judge(cfg)

    def fingerprinted() -> str:
        return _joined(seed.fingerprint, adapter_digest(folder))

    return replace(seed, name=folder.name, weights=folder, fingerprinted=fingerprinted, folder=folder)


def trained_judge(folder: Path, *, trust_remote_code: bool, unpacked: str | None, base_model: str | None = None) -> Judge:
    """The judge that a fit stage made.

    Args:
        folder: of the complete stage. trust_remote_code: whether Python code that came with its base model may run; the folder's own
            configuration cannot allow it. unpacked: folder for unpacked GGUF files, None for none.
        base_model: where its base model is, in place of where the run found it.

    Raises:
        ConfigError, DataError: if it is none, its files are damaged, or it needs code that may not run.
    """
    product = open_product(folder)
    try:
        saved = json.loads((folder / "layout.json").read_text(encoding="utf-8"))
        trained = OmegaConf.load(folder / "config.yaml")
        assert isinstance(trained, DictConfig)
        # Runs of before this key keep the scaffold that they were trained with, in layout.json.
        filled = {"template_date": TEMPLATE_DATE}
        model = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ModelConfig), filled, trained.model))
        assert isinstance(model, ModelConfig)
        # Judges of before these keys were trained on headings and finished prompts as they came.
        before = {"escape_headings": False, "reword_output_format": False}
        template = PromptTemplate(**{**before, **saved["prompt"], "blocks": tuple(saved["prompt"]["blocks"])})
        kind, use_cot, seed = str(trained.adapter.kind), bool(trained.objective.use_cot), int(trained.seed)
    except (OSError, KeyError, TypeError, AssertionError, OmegaConfBaseException, json.JSONDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"judge: {folder} is no folder of a fit stage: {type(error).__name__}: {reason}; give that of stage1 or stage2"
        ) from error
    written = model.name_or_path
    if base_model is None:
        model = found_base(model, seed, folder, product.manifest)
    else:
        model = replace(model, name_or_path=base_model, package=None, revision=None)
    model = _as_allowed(model, folder, trust_remote_code, unpacked)
    tokenizer = load_tokenizer(in_folder(model, folder))
    layout = SequenceLayout.from_dict(tokenizer, saved)

    def fingerprinted() -> str:
        # The base model is no file of the folder where an adapter was trained.
        return _joined(product.fingerprint, model_fingerprint(model, seed, named=written))

    name = str(product.manifest.get("stage", folder.name))
    return Judge(name, fingerprinted, model, folder, kind == "qlora", tokenizer, layout, template, seed, use_cot, written, folder)


def _as_allowed(model: ModelConfig, folder: Path, trust_remote_code: bool, unpacked: str | None) -> ModelConfig:
    """The base model that a run folder names, without what only the user may say.

    Raises:
        ConfigError: if it runs code that came with the model, and the user does not allow this.
    """
    if model.trust_remote_code and not trust_remote_code:
        raise ConfigError(
            f"model.trust_remote_code: the judge {folder} was trained with true, so that Python code of {model.name_or_path!r} would run, "
            "but a folder cannot allow this by itself; read that code, and if you trust it set model.trust_remote_code=true (a command: "
            "--trust-remote-code, Python: trust_remote_code=True)"
        )
    # Where files are written, and which file is read, is nothing that a folder from elsewhere decides; its tokenizer has the template.
    return replace(model, unpacked=unpacked, chat_template=None)


def _joined(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
