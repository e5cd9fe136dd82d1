"""From the predictions on perturbed benchmarks to how far a judge's scores move."""

from __future__ import annotations

from collections.abc import Mapping

from tract.artifacts.products import Product
from tract.config.schema import Config
from tract.evaluation.results import Robustness
from tract.evaluation.robustness import Readings, robustness_of
from tract.evaluation.scored import Scored
from tract.evaluation.scoring import draws_of
from tract.pipeline.stages.predict import Predictions


def base_benchmarks(product: Product) -> list[str]:
    """The benchmarks of a predict stage as they are, without their perturbed copies."""
    return [name for name, counts in product.manifest["benchmarks"].items() if not counts.get("base")]


def readings_of(predictions: Predictions, scored: Mapping[str, Scored], predictors: list[str]) -> dict[str, Readings]:
    """Benchmark -> what the judge says about it and its perturbed copies; empty where there are no such copies.

    Args:
        predictions: of a judge. scored: benchmark -> their scores, copies included. predictors: those to read each CoT by.
    """
    changed: dict[str, dict[str, str]] = {}  # benchmark -> perturbation -> name of the copy
    for name, about in predictions.counts.items():
        if about.get("base"):
            changed.setdefault(about["base"], {})[about["perturbation"]] = name
    cots = [name for name in predictors if name != "no_cot"]
    return {
        base: Readings(
            base=scored[base],
            draws={name: draws_of(*predictions.of[base], name, predictions.grid, predictions.cue) for name in cots},
            changed={perturbation: scored[copy] for perturbation, copy in copies.items()},
            unchanged={perturbation: predictions.counts[copy]["unchanged"] for perturbation, copy in copies.items()},
        )
        for base, copies in changed.items()
    }


def robustness_on(own: Mapping[str, Readings], other: Mapping[str, Readings], cfg: Config) -> tuple[Robustness, ...]:
    """One judge's robustness on each benchmark; where the other judge's readings are there too, with paired differences."""
    evaluation = cfg.evaluation
    return tuple(
        robustness_of(
            readings,
            evaluation.predictors,
            seed=cfg.seed,
            resamples=evaluation.resamples,
            confidence=evaluation.confidence,
            other=other.get(benchmark),
        )
        for benchmark, readings in own.items()
    )
