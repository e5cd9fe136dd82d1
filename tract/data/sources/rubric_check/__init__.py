"""Offline generator of judge tasks whose score is a computed fact: how many checkable constraints a short text meets."""

from __future__ import annotations

from tract.data.sources.rubric_check.constraints import HELD_OUT, IN_DOMAIN, KINDS, Constraint, Kind
from tract.data.sources.rubric_check.generator import GENERATOR_VERSION, RubricCheck, Task

__all__ = ["GENERATOR_VERSION", "HELD_OUT", "IN_DOMAIN", "KINDS", "Constraint", "Kind", "RubricCheck", "Task"]
