"""The W&B run of a stage: opened before the stage works, told what it made, closed; whatever W&B does, the stage goes on.

Each stage is a run of its own: group = the run's name, job type = the stage. Its id is made of the product's key, so a stage that
goes on after a kill goes on in the same run. Files lie in ``<runs>/wandb``; a run that was offline is uploaded by ``wandb sync``.
"""

from __future__ import annotations

import logging
import netrc
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from tract.artifacts.products import Product
from tract.common.masking import masked, masked_text
from tract.common.progress import EXAMPLES_AXIS, STEP_AXIS, TOKENS_AXIS
from tract.config.schema import Config
from tract.config.vocabulary import WANDB_KEYS

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

log = logging.getLogger(__name__)

NODE = "wandb"  # of the logger section
VARIANT = "variant"  # key beside the configuration: the job's variant, else the ablation, else the run's name; what runs are grouped by
_LAST_PATIENCE_S = 10.0  # for the end of a run that has failed
# What W&B shows of its arguments; others, such as its settings, may hold a key that it needs.
_SHOWN = ("project", "entity", "group", "name", "job_type", "notes", "tags")


class Tracker:
    """A stage's run in W&B, or none. No method raises: at the first failure of W&B one line says so, and the rest is left out.

    Args:
        node: ``logger.wandb``; None for no W&B.
        arguments: of ``wandb.init`` beside those of the node.
    """

    def __init__(self, node: Mapping[str, Any] | None, arguments: Mapping[str, Any]) -> None:
        self._own = {name: node[name] for name in WANDB_KEYS} if node else {}
        self.run: Any = None
        if node is None:
            return
        given = {name: value for name, value in node.items() if name not in WANDB_KEYS}
        if given.get("mode") == "auto":
            given["mode"] = wandb_mode()
        if given.get("mode") == "disabled":
            return
        given.update({name: masked(given[name]) for name in _SHOWN if name in given})
        self.guard("start", lambda: self._open({**given, **arguments}), always=True)

    def _open(self, arguments: dict[str, Any]) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")  # the pipeline itself says where the files are
        import wandb

        Path(arguments["dir"]).mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(resume="allow", reinit="create_new", **arguments)
        for axis in (STEP_AXIS, EXAMPLES_AXIS, TOKENS_AXIS):
            self.run.define_metric(axis, hidden=True)
        self.run.define_metric("*", step_metric=STEP_AXIS, step_sync=True)
        for metric, summary in (("val/pearson_r", "max"), ("val/rmse", "min"), ("train/tokens_per_s", "mean")):
            self.run.define_metric(metric, step_metric=STEP_AXIS, step_sync=True, summary=f"{summary},last")

    def guard(self, what: str, action: Callable[[], Any], *, always: bool = False) -> None:
        """Does something with W&B if there is a run.

        Args:
            what: in words, for the line about a failure. action: what to do. always: also without a run.
        """
        if self.run is None and not always:
            return
        patience = float(self._own["timeout_s"])
        if (failure := _failure(action, patience)) is None:
            return
        if failure == _SILENCE:
            failure = f"no answer within logger.wandb.timeout_s={patience:g} s"
        run, self.run = self.run, None
        log.warning("W&B: could not %s (%s); this stage goes on without it", what, masked_text(failure))
        _abandon(run, patience)

    def loggers(self) -> list[Logger]:
        """For the trainer: one that writes to the run, or none."""
        if self.run is None:
            return []
        from tract.pipeline.tracking.wandb_logger import GuardedLogger

        def log_row(row: dict[str, float]) -> None:
            self.guard("log metrics", lambda: self.run.log(row))

        return [GuardedLogger(self.run, log_row)]

    def log_product(self, product: Product) -> None:
        """Tables, plots, numbers and artifacts of a stage that is complete."""
        from tract.pipeline.tracking import tracked_products

        self.guard("log numbers", lambda: self.run.summary.update(tracked_products.summary(product)))
        if rows := int(self._own.get("table_rows", 0)):
            self.guard("log tables and plots", lambda: self.run.log(tracked_products.media(product, rows)))
        kind = self._own.get("artifacts", "none")
        if kind != "none":
            self.guard("log artifacts", lambda: tracked_products.log_artifacts(self.run, product, whole_weights=kind == "all"))

    def close(self, *, failed: bool) -> None:
        """Ends the run; what W&B could not send meanwhile stays in its files."""
        if failed:  # whoever asked for the end of the process, a batch system say, does not wait as long as a stage does
            self._own["timeout_s"] = min(float(self._own.get("timeout_s", 0)), _LAST_PATIENCE_S)
        self.guard("finish", lambda: self.run.finish(exit_code=int(failed)))
        self.run = None


_SILENCE = "silence"


def _failure(action: Callable[[], Any], timeout_s: float) -> str | None:
    """What went wrong with an action, in a line; ``_SILENCE`` if it is still at it after the patience; None if it was done."""
    errors: list[BaseException] = []

    def act() -> None:
        try:
            action()
        except BaseException as error:  # W&B's own process may be gone, its server refuse, or its library exit
            errors.append(error)

    thread = threading.Thread(target=act, name="wandb", daemon=True)  # W&B can wait for its server for ever
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        return _SILENCE
    return f"{type(errors[0]).__name__}: {' '.join(str(errors[0]).split())[:200]}" if errors else None


def _abandon(run: Any, timeout_s: float) -> None:
    """Ends what is left of W&B after a failure, so that neither the next stage nor the end of the process trips over it."""
    import wandb

    if run is not None and _failure(lambda: run.finish(exit_code=1), min(timeout_s, _LAST_PATIENCE_S)) is None:
        return
    import psutil

    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if process.name().startswith("wandb"):
                process.kill()
    _failure(wandb.teardown, _LAST_PATIENCE_S)


@contextmanager
def tracked(cfg: Config, config: Mapping[str, Any], key: str) -> Iterator[Tracker]:
    """The tracker of a stage, closed with how it ended; for the first of its ranks alone.

    Args:
        cfg: the typed configuration of the stage. config: the same, whole and resolved, for W&B. key: of the stage's product.
    """
    node = cfg.logger.get(NODE)
    arguments: dict[str, Any] = {
        "id": f"{cfg.run.name}-s{cfg.seed}-{cfg.stage}-{key}",
        "job_type": cfg.stage,
        "dir": cfg.paths.runs,
        "config": {**masked(dict(config)), VARIANT: masked_text(cfg.run.variant or cfg.run.ablation or cfg.run.name)},
    }
    if node is not None:
        marks = [cfg.stage, cfg.run.ablation, *map(str, node.get("tags") or [])]
        node = {**node, "tags": list(dict.fromkeys(filter(None, marks))), "name": _with_variant(str(node.get("name")), cfg)}
    tracker = Tracker(node, arguments)
    try:
        yield tracker
    except BaseException:
        tracker.close(failed=True)
        raise
    tracker.close(failed=False)


def _with_variant(name: str, cfg: Config) -> str:
    """The name of a W&B run, in which the variant of a multirun's job follows what all jobs are called."""
    own = cfg.run.name
    return f"{own}-{cfg.run.variant}{name.removeprefix(own)}" if cfg.run.variant and name.startswith(own) else name


def wandb_mode() -> str:
    """WANDB_MODE if set; "online" if there is a key for the W&B server; else "offline"."""
    if mode := os.environ.get("WANDB_MODE"):
        return mode
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return "online" if netrc.netrc().authenticators(host) else "offline"
    except (OSError, netrc.NetrcParseError):
        return "offline"
