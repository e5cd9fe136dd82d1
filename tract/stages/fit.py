"""The fit stage: fine-tunes the seed LLM on judge examples and writes adapter or weights, tokenizer and layout.

What it makes is known without Lightning, which takes seconds to load: ``tract.stages.training`` does the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tract.config import Config
from tract.data.cots import COTS_FILE
from tract.modeling import model_fingerprint
from tract.stages.identity import StageIdentity, code_digests, material
from tract.stages.prepare import Prepared, prepare, prepare_generated
from tract.stages.products import Product
from tract.stages.run_folder import StageFolder
from tract.stages.stage import IMMATERIAL_CODE, run_stage

# What a fit stage depends on beside its data and parents.
_SECTIONS = (
    "seed", "stage", "model", "adapter", "prompt", "grid", "data", "objective", "optimizer", "scheduler", "batch", "train", "trainer"
)  # fmt: skip
_IMMATERIAL = (
    "model.unpacked", "train.keep_checkpoints", "data.num_workers", "data.path", "data.source", "trainer.enable_progress_bar",
    "trainer.log_every_n_steps", "trainer.devices", "trainer.num_nodes",
)  # fmt: skip


@dataclass
class FitStage:
    """Fine-tunes the seed LLM on judge examples: on their annotated CoTs (stage 1), or on generated ones (stage 2).

    Attributes:
        cfg: the typed configuration of this stage. resolved: the same as composed, for the run folder.
        generated: product of a generate stage; None trains on annotated CoTs.
        start: product of the fit stage whose weights training goes on from; None starts from the seed LLM.
    """

    cfg: Config
    resolved: DictConfig
    generated: Product | None = None
    start: Product | None = None

    @property
    def name(self) -> str:
        """stage1 or stage2."""
        return self.cfg.stage

    @cached_property
    def data(self) -> Prepared:
        """Examples, split and token ids."""
        return prepare(self.cfg) if self.generated is None else prepare_generated(self.cfg, self.generated.path / COTS_FILE)

    def identity(self) -> StageIdentity:
        """Configuration, content of the data, seed LLM, parents and code."""
        config = material(self.resolved, (*_SECTIONS, *(("stage2.cots", "stage2.filter") if self.generated else ())), _IMMATERIAL)
        config["data"]["fingerprint"] = self.data.store.fingerprint
        config["model"]["fingerprint"] = model_fingerprint(self.cfg.model, self.cfg.seed)
        if self.generated is not None:
            config["generation"] = {"max_cot_tokens": self.cfg.generation.max_cot_tokens}  # what prompts leave room for
        return StageIdentity(
            self.name,
            config,
            {role: product.fingerprint for role, product in self._parents().items()},
            code_digests("tract.stages.fit", immaterial=IMMATERIAL_CODE),
        )

    def make(self, folder: StageFolder) -> dict[str, Any]:
        """Trains, or goes on with a training that was cut off."""
        from tract.stages.training import train

        facts = train(self.cfg, self.resolved, self.data, self.start.path if self.start else None, folder)
        return {
            "parents": {role: str(product.path) for role, product in self._parents().items()},
            "data": {"source": self.data.store.fingerprint, "tokens": self.data.tokens.fingerprint, "counts": self.data.counts},
            "training": facts,
        }

    def _parents(self) -> dict[str, Product]:
        return {role: product for role, product in (("generate", self.generated), ("start", self.start)) if product is not None}


def fit(cfg: Config, resolved: DictConfig) -> Path:
    """Runs stage 1 alone, here; returns the complete folder.

    Args:
        cfg: the typed configuration. resolved: the same as composed, for the run folder.

    Raises:
        TractError: for anything that the user can mend.
    """
    return run_stage(FitStage(cfg, resolved), cfg, force=bool({"stage1", "all"} & set(cfg.force))).path
