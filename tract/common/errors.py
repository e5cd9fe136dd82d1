"""The errors that users can cause. The entry scripts print them as one line and exit with status 2."""

from __future__ import annotations


class TractError(Exception):
    """Base of every error that a user can correct; the message is one line that says how."""


class ConfigError(TractError, ValueError):
    """A configuration value is missing, unknown or contradicts another one."""


class PadTokenError(ConfigError):
    """A tokenizer has no pad token, and the configuration names none.

    Attributes:
        end_token: the token that ends its turns, else that of unknown text; None where it has neither.
    """

    def __init__(self, message: str, end_token: str | None = None) -> None:
        super().__init__(message)
        self.end_token = end_token


class DataError(TractError, ValueError):
    """A data file or one of its rows cannot be used."""


class TrainingError(TractError, RuntimeError):
    """Training cannot continue, for example because the loss is not finite."""


class GenerationError(TractError, RuntimeError):
    """A judge cannot continue, for example because its logits are not finite."""


class ReportedExit(SystemExit):
    """The end of a process by an error that was reported already, with its exit status.

    Attributes:
        message: what was reported, one line.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code)
        self.message = message
