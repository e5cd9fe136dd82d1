"""What W&B shows of a stage's product: numbers, tables, plots, and artifacts with their lineage.

An artifact is called as the folder of its product, so what a stage reads and what another one made are the same artifact:
stage1-KEY (judge) -> generate-KEY (cots) -> stage2-KEY (judge) -> predict-KEY (predictions) -> evaluate-KEY (report).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tract.artifacts.products import MANIFEST, Product
from tract.data.generated_cots.file import COTS_FILE
from tract.evaluation.results import METRICS_FILE, PREDICTIONS_FILE
from tract.evaluation.scoring import WITH_COT, WITHOUT_COT

ARTIFACT_TYPES = {"stage1": "judge", "generate": "cots", "stage2": "judge", "predict": "predictions", "evaluate": "report"}
# In the order of the columns; what a table has of them.
_COT_COLUMNS = ("id", "split", "cot_index", "finish", "score", "rail", "score_mass", "cot")
_PREDICTION_COLUMNS = (
    "benchmark", "id", "reading", "cot_index", "status", "finish", "target", "rail", "argmax", "decode_free", "score_mass", "instruction",
    "response", "cot",
)  # fmt: skip
_WEIGHTS = "model*.safetensors"  # of a judge whose weights are all trained; an adapter is small


def summary(product: Product) -> dict[str, Any]:
    """Numbers of a product by slash-separated names: counts of data, how CoTs ended, facts of training, metrics with intervals."""
    manifest = product.manifest
    found: dict[str, Any] = {"product/path": product.path.name, "product/fingerprint": product.fingerprint}
    for section in ("data", "cots", "benchmarks", "training"):
        found |= {name: value for name, value in _numbers(manifest.get(section, {}), section) if name != "data/tokens"}
    if manifest["stage"] == "evaluate":
        found |= _metrics(product)
    return found


def _numbers(node: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _numbers(value, f"{name}/{key}")
    elif isinstance(node, (int, float)) and not isinstance(node, bool):
        yield name, node


def _metrics(product: Product) -> dict[str, float]:
    content = json.loads((product.path / METRICS_FILE).read_text(encoding="utf-8"))
    main = content["main_predictor"]
    found: dict[str, float] = {}
    for benchmark, report in content["benchmarks"].items():
        for predictor, metrics in report["predictors"].items():
            for metric, estimate in metrics.items():
                names = [f"eval/{benchmark}/{predictor}/{metric}"]
                if predictor == main:  # a name that is the same for all runs, whatever their main predictor, to compare them by
                    names.append(f"eval/{benchmark}/{metric}")
                for name in names:
                    found |= {
                        f"{name}{suffix}": estimate[part]
                        for part, suffix in (("value", ""), ("low", "_low"), ("high", "_high"))
                        if estimate[part] is not None
                    }
        if (constant := report["baselines"]["constant"]["rmse"]["value"]) is not None:
            found[f"eval/{benchmark}/rmse_of_constant"] = constant
    return found


def media(product: Product, rows: int) -> dict[str, Any]:
    """Tables and plots of a product, for one ``log`` of a run.

    Args:
        product: complete. rows: the most of a table; of more, every so many-th is taken.
    """
    stage = product.manifest["stage"]
    if stage == "generate":
        return _cots(product, rows)
    if stage == "evaluate":
        return _evaluation(product, rows)
    counts = product.manifest.get("data", {}).get("counts", {})
    table = _table(("count", "of"), [(number, name) for name, number in _numbers(counts, "data")])
    return {"data/counts": table} if counts else {}


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Any:
    import wandb

    return wandb.Table(columns=list(columns), data=[list(row) for row in rows], allow_mixed_types=True)


def _evenly_spaced(records: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """At most so many records, evenly spread."""
    step = max(1, -(-len(records) // most))
    return list(records[::step])


def _with_distribution(records: Sequence[Mapping[str, Any]], columns: Sequence[str], labels: Sequence[str]) -> Any:
    """A table with the score distribution in columns of its own; ``probabilities`` are by label, or missing."""
    shown = [name for name in columns if any(name in record for record in records)]
    table_rows = []
    for record in records:
        distribution = record["probabilities"] or {}
        table_rows.append([*(record.get(name) for name in shown), *(distribution.get(label) for label in labels)])
    return _table([*shown, *(f"p({label})" for label in labels)], table_rows)


def _cots(product: Product, rows: int) -> dict[str, Any]:
    records = pq.read_table(product.path / COTS_FILE).to_pylist()
    labels = _labels(product)
    shown = [
        {**record, "cot_index": record["sample"], "probabilities": dict(zip(labels, record["probabilities"], strict=True))}
        for record in _evenly_spaced(records, rows)
    ]
    ends = product.manifest["cots"]["by_finish"]
    import wandb

    lengths = [[len(record["cot_ids"])] for record in records]
    return {
        "cots/sampled": _with_distribution(shown, _COT_COLUMNS, labels),
        "cots/by_finish": _table(("finish", "cots"), ends.items()),
        "cots/length": wandb.plot.histogram(_table(("tokens",), lengths), "tokens", title="Tokens of the sampled CoTs"),
    }


def _labels(product: Product) -> list[str]:
    """The scores of the grid, as the run's configuration has them."""
    from omegaconf import OmegaConf

    return list(map(str, OmegaConf.load(product.path / "config.yaml").grid.labels))


def _evaluation(product: Product, rows: int) -> dict[str, Any]:
    import wandb

    with (product.path / PREDICTIONS_FILE).open(encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    labels = next((list(record["probabilities"]) for record in records if record["probabilities"]), [])
    found: dict[str, Any] = {"predictions": _with_distribution(_evenly_spaced(records, rows), _PREDICTION_COLUMNS, labels)}
    reports = json.loads((product.path / METRICS_FILE).read_text(encoding="utf-8"))
    main = reports["main_predictor"]
    read = "rail" if main in ("no_cot", "rail") else main
    for benchmark, report in reports["benchmarks"].items():
        reading = WITHOUT_COT if main == "no_cot" else WITH_COT
        scored = [r for r in records if r["benchmark"] == benchmark and r[read] is not None and r["reading"] == reading]
        points = _table(("true score", "predicted score"), [(r["target"], r[read]) for r in scored])
        bins = _table(("predicted", "true", "items"), [(b["predicted"], b["true"], b["count"]) for b in report["reliability"][main]])
        found |= {
            f"plots/{benchmark}/predicted_vs_true": wandb.plot.scatter(
                points, "true score", "predicted score", title=f"{benchmark}: {main}"
            ),
            f"plots/{benchmark}/scores": wandb.plot.histogram(points, "predicted score", title=f"{benchmark}: predicted scores"),
            f"plots/{benchmark}/reliability": wandb.plot.line(bins, "predicted", "true", title=f"{benchmark}: reliability"),
        }
    return found


def log_artifacts(run: Any, product: Product, *, whole_weights: bool) -> None:
    """Logs the product as an artifact, and those that it was made from as what the run used.

    Args:
        run: of W&B. product: complete. whole_weights: whether a judge whose weights are all trained goes with them; else its place does.
    """
    for parent in parents(product):
        _log_used_artifact(run, artifact(parent, whole_weights=whole_weights))
    run.log_artifact(artifact(product.path, whole_weights=whole_weights))


def parents(product: Product) -> list[Path]:
    """The folders of the products that this one was made from, as far as they are there."""
    manifest = product.manifest
    named = [*manifest.get("parents", {}).values(), manifest.get("judge", {}).get("weights") or ""]
    return [Path(name) for name in dict.fromkeys(named) if name and (Path(name) / MANIFEST).is_file()]


def artifact(folder: Path, *, whole_weights: bool) -> Any:
    """The artifact of a product, not logged yet; the same product gives the same content, which W&B stores once."""
    import wandb

    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    about = {name: manifest[name] for name in ("stage", "key", "fingerprint", "run", "seed", "commit") if name in manifest}
    made = wandb.Artifact(folder.name, type=ARTIFACT_TYPES[manifest["stage"]], metadata=about)
    for name in [*manifest["files"], "config.yaml", MANIFEST]:
        path = folder / name
        if not path.is_file():
            continue
        if not whole_weights and path.match(_WEIGHTS):
            made.add_reference(path.resolve().as_uri(), name=name, checksum=False)
        else:
            made.add_file(str(path), name=name, policy="immutable")  # a complete product does not change, so no copy is made
    return made


def _log_used_artifact(run: Any, made: Any) -> None:
    if run.offline:
        # The public way refuses to work offline; this is what it does online, kept for `wandb sync`.
        run._log_artifact(made, is_user_created=True, use_after_commit=True)
    else:
        run.use_artifact(made)
