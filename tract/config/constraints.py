"""What a value of the configuration must fulfil beyond its type; ``tract.config.schema`` gives it beside the type, by ``Annotated``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class OneOf:
    """A choice of names.

    Args:
        accepted: the names, in the order in which messages list them.
    """

    def __init__(self, *accepted: str) -> None:
        self.accepted = accepted

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value, as a message says it; None if it is accepted."""
        return None if value in self.accepted else f"{value!r} is not one of {', '.join(self.accepted)}"


@dataclass(frozen=True)
class AtLeast:
    """A number of which the least is accepted too; null, where the type allows it, is accepted."""

    least: int

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value, as a message says it; None if it is accepted."""
        return None if value is None or not value < self.least else f"{value} is not a number >= {self.least}"
