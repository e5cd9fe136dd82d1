"""TRACT judges: two-stage regression-aware fine-tuning of LLM judges (arXiv 2503.04381)."""

# Nothing is imported here at run time: see tract.common.import_order.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tract.judge.grades import CotGrade, Grade
    from tract.judge.judge import Judge
    from tract.judge.relative import Comparison
    from tract.judge.requests import GradeRequest
    from tract.text.schema import Rubric

__version__ = "0.1.0"
__all__ = ["Comparison", "CotGrade", "Grade", "GradeRequest", "Judge", "Rubric", "__version__"]

# Where each name is; found when it is asked for, since the judge loads torch and the command line must not wait for it.
_HOMES = {
    "Comparison": "tract.judge.relative",
    "CotGrade": "tract.judge.grades",
    "Grade": "tract.judge.grades",
    "GradeRequest": "tract.judge.requests",
    "Judge": "tract.judge.judge",
    "Rubric": "tract.text.schema",
}


def __getattr__(name: str) -> "Any":
    if name not in _HOMES:
        raise AttributeError(f"module 'tract' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
