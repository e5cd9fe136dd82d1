"""The tiny pipeline, run once for all tests that look at its products."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from tiny_pipeline import Tiny

from tract.stages.products import Product


@dataclass(frozen=True)
class Whole:
    """The tiny pipeline after its first run: where, its products and its log."""

    tiny: Tiny
    products: dict[str, Product]
    lines: list[str]


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """All five stages; tests may run changed pipelines beside it, which reuse what is the same, but change none of its products."""
    tiny = Tiny(tmp_path_factory.mktemp("pipeline"))
    products, lines = tiny.run()
    return Whole(tiny, products, lines)
