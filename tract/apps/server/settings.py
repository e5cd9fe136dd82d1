"""The limits of a server, and how a caller proves who it is. Loads nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tract.common.errors import ConfigError
from tract.judge.requests import MOST_COTS


@dataclass(frozen=True)
class ServerSettings:
    """What a server allows.

    Attributes:
        token: the bearer token that all paths but ``/health`` need; None for none.
        max_queue: the most items that wait or are graded at a time, and the most requests that are read at a time.
        max_batch_items: the most items of one batch.
        max_body_bytes: the most bytes of one request's body.
        max_n_cot: the most CoTs that a request may ask for.
        request_timeout_s: how long a request waits for its grades. body_timeout_s: how long its body may take to arrive.
        shutdown_timeout_s: how long requests that have begun are waited for when the server ends.

    Raises:
        ConfigError: naming each option that cannot be used.
    """

    token: str | None = field(default=None, repr=False)
    max_queue: int = 256
    max_batch_items: int = 64
    max_body_bytes: int = 2 * 1024 * 1024
    max_n_cot: int = 16
    request_timeout_s: float = 300.0
    body_timeout_s: float = 30.0
    shutdown_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        problems = [
            f"--{name.replace('_', '-')}: {getattr(self, name)} is not a whole number >= 1"
            for name in ("max_queue", "max_batch_items", "max_body_bytes", "max_n_cot")
            if getattr(self, name) < 1
        ]
        problems += [
            f"--{name.removesuffix('_s').replace('_', '-')}: {getattr(self, name):g} is not a number of seconds > 0"
            for name in ("request_timeout_s", "body_timeout_s", "shutdown_timeout_s")
            if not 0 < getattr(self, name) < math.inf
        ]
        if self.max_n_cot > MOST_COTS:
            problems.append(f"--max-n-cot: {self.max_n_cot} is more than the {MOST_COTS} that a judge takes")
        if not problems and self.max_batch_items > self.max_queue:
            problems.append(
                f"--max-batch-items: {self.max_batch_items} items never fit into the queue (--max-queue {self.max_queue}); "
                "lower it, or raise --max-queue"
            )
        if self.token is not None and (not self.token or not self.token.isascii() or any(c.isspace() for c in self.token)):
            problems.append("the bearer token is empty, or holds blanks or other characters than ASCII; use one that a header can carry")
        if problems:
            raise ConfigError("; ".join(problems))
