"""From where a judge is to its files: one loader for the pipeline and the Python API, which differ in what they add to the files."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tract.artifacts.exported_judge import ExportedJudge, exported_judge
from tract.artifacts.fit_stages import FitFolder
from tract.artifacts.judge_files import JudgeFiles, joint_digest
from tract.artifacts.judge_location import ADAPTER, IN_PACKAGE, PACKAGE, JudgeLocation
from tract.artifacts.judge_settings import SETTINGS_FILE, BaseModel
from tract.artifacts.products import open_product
from tract.artifacts.recorded_paths import found_base
from tract.common.errors import ConfigError, DataError, PadTokenError
from tract.config.schema import ModelConfig
from tract.models.locating import in_folder, model_fingerprint
from tract.models.tokenizers import load_tokenizer
from tract.text.chat_template import TEMPLATE_DATE
from tract.text.layout import SequenceLayout
from tract.text.prompts import PromptTemplate

# Files beside a judge's weights that move no number.
NOT_WEIGHTS = (SETTINGS_FILE, "README.md")


class JudgeLoader(ABC):
    """Opens judges; loads no weights.

    Args:
        like: other models are loaded as this one: dtype, attention, whether code that comes with them may run, folder for unpacked files.
        pad_with_end: whether a tokenizer without pad token pads with the token that ends its turns where ``like`` names none.
        revision: of a judge on the hub. base_model: what an adapter belongs on, in place of what its files say.
    """

    def __init__(
        self, like: ModelConfig, *, pad_with_end: bool = False, revision: str | None = None, base_model: str | None = None
    ) -> None:
        self.like = like
        self.pad_with_end = pad_with_end
        self.revision = revision
        self.base_model = base_model

    def open(self, found: JudgeLocation) -> JudgeFiles:
        """The files of a judge.

        Args:
            found: where it is; no ``BASE``.

        Raises:
            ConfigError, DataError: if there is none, or its files are damaged.
        """
        if found.fit is not None:
            return self.of_run(found.fit)
        if found.kind == ADAPTER:
            return self.of_adapter(found.path)
        if (exported := exported_judge(found, revision=self.revision, base_model=self.base_model)) is not None:
            return self.of_export(exported, found)
        if found.kind == IN_PACKAGE:
            package, _, pattern = found.spec.removeprefix(PACKAGE).partition("/")
            return self.untrained(BaseModel(pattern or "*.gguf", package))
        return self.untrained(BaseModel(found.spec, revision=None if Path(found.spec).exists() else self.revision))

    @abstractmethod
    def of_run(self, stage: FitFolder) -> JudgeFiles:
        """The judge that a fit stage trained."""

    @abstractmethod
    def of_adapter(self, folder: Path) -> JudgeFiles:
        """An adapter that PEFT wrote elsewhere, asked as the model below it, since nothing says how it was trained."""

    @abstractmethod
    def of_export(self, exported: ExportedJudge, found: JudgeLocation) -> JudgeFiles:
        """An exported judge, with its own prompt, cue and grid."""

    @abstractmethod
    def untrained(self, base: BaseModel) -> JudgeFiles:
        """A model that was not trained as a judge."""

    def model(self, base: BaseModel) -> ModelConfig:
        """Another model, used as ``like`` is, with its own pad token, or the one that stands in for it.

        Raises:
            ConfigError: if its tokenizer cannot be loaded, or has no pad token and nothing stands in for it.
        """
        model = replace(
            self.like,
            name_or_path=base.name_or_path,
            package=base.package,
            revision=base.revision,
            tokenizer_name_or_path=None,
            random_init=False,
            pad_token=None,
        )
        try:
            load_tokenizer(model)
        except PadTokenError as error:
            instead = error.end_token if self.pad_with_end else self.like.pad_token
            if instead is None:
                raise
            return replace(model, pad_token=instead)
        return model


def trained_judge(stage: FitFolder, *, trust_remote_code: bool, unpacked: str | None, base_model: str | None = None) -> JudgeFiles:
    """The judge that a fit stage made.

    Args:
        stage: complete. trust_remote_code: whether Python code that came with its base model may run; the folder's own
            configuration cannot allow it. unpacked: folder for unpacked GGUF files, None for none.
        base_model: where its base model is, in place of where the run found it.

    Raises:
        ConfigError, DataError: if it is none, its files are damaged, or it needs code that may not run.
    """
    folder = stage.path
    product = open_product(folder)
    try:
        saved = json.loads((folder / "layout.json").read_text(encoding="utf-8"))
        trained = OmegaConf.load(folder / "config.yaml")
        assert isinstance(trained, DictConfig)
        model, template = _trained_model(trained), _trained_template(saved)
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

    def fingerprinted() -> str:
        # The base model is no file of the folder where an adapter was trained.
        return joint_digest(product.fingerprint, model_fingerprint(model, seed, named=written))

    return JudgeFiles(
        name=str(product.manifest.get("stage", folder.name)),
        fingerprinted=fingerprinted,
        model=model,
        weights=folder,
        tokenizer=tokenizer,
        layout=SequenceLayout.from_dict(tokenizer, saved),
        template=template,
        seed=seed,
        four_bit=kind == "qlora",
        use_cot=use_cot,
        named=written,
        folder=folder,
        own_stage=stage,
    )


def _trained_model(trained: DictConfig) -> ModelConfig:
    """The base model of a run's configuration."""
    # Runs of before this key keep the scaffold that they were trained with, in layout.json.
    filled = {"template_date": TEMPLATE_DATE}
    model = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ModelConfig), filled, trained.model))
    assert isinstance(model, ModelConfig)
    return model


def _trained_template(saved: dict[str, Any]) -> PromptTemplate:
    """The prompt template of a ``layout.json``."""
    # Judges of before these keys were trained on headings and finished prompts as they came.
    before = {"escape_headings": False, "reword_output_format": False}
    return PromptTemplate(**{**before, **saved["prompt"], "blocks": tuple(saved["prompt"]["blocks"])})


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
