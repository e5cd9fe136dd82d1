"""The command line of ``tract serve``. Nothing heavy is loaded before the arguments are read."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import signal
import sys
from typing import Any

from tract.apps.server.settings import ServerSettings
from tract.common import signals
from tract.common.command_line import install_command
from tract.common.errors import ConfigError
from tract.common.masking import MaskedFormatter
from tract.judge.arguments import add_judge_arguments, options_of

log = logging.getLogger(__name__)

_DESCRIPTION = "Serves a judge over HTTP: /v1/grade, /v1/grade/batch, /v1/judge, /health, /metrics and a page of documentation, /docs."
_EPILOG = """\
examples:
  tract serve --judge exported/my_judge
  tract serve --judge runs/tract_quickstart/seed0 --n-cot 4 --port 9000
  TRACT_SERVER_TOKEN=... tract serve --judge exported/my_judge --host 0.0.0.0
  curl http://127.0.0.1:8080/v1/grade -H 'Content-Type: application/json' \\
    -d '{"instruction": "Name a prime above 10.", "response": "11", "rubric": "Is the answer right?"}'
"""
DEFAULT_TOKEN_ENV = "TRACT_SERVER_TOKEN"
_PACKAGES = ("fastapi", "uvicorn", "prometheus_client")
_LIMITS = ServerSettings()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``tract serve``."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s, this machine alone)")
    parser.add_argument("--port", type=int, default=8080, help="0 for a free one, which is logged (default: %(default)s)")
    parser.add_argument(
        "--token-env", metavar="NAME",
        help=f"environment variable with the bearer token that requests must bring (default: {DEFAULT_TOKEN_ENV}, if it is set)",
    )  # fmt: skip
    limits = parser.add_argument_group("limits")
    _limit(limits, "max_queue", int, "items that wait or are graded at a time; more are answered with 429")
    _limit(limits, "max_batch_items", int, "items of one batch; more are answered with 413")
    _limit(limits, "max_body_bytes", int, "bytes of one request; more are answered with 413")
    _limit(limits, "max_n_cot", int, "CoTs that a request may ask for")
    _limit(limits, "request_timeout_s", float, "seconds that a request waits for its grades; then it is answered with 504")
    _limit(limits, "body_timeout_s", float, "seconds that a request's body may take to arrive; then it is answered with 408")
    _limit(limits, "shutdown_timeout_s", float, "seconds that requests are waited for after SIGTERM or Ctrl-C")
    add_judge_arguments(parser)


def _limit(group: Any, name: str, kind: type, text: str) -> None:
    value = getattr(_LIMITS, name)
    group.add_argument(_flag(name), dest=name, type=kind, default=value, metavar="N", help=f"{text} (default: {value:g})")


def _flag(name: str) -> str:
    return f"--{name.removesuffix('_s').replace('_', '-')}"


def run(arguments: argparse.Namespace) -> None:
    """Serves until SIGTERM or Ctrl-C.

    Raises:
        ConfigError: if the options, the address or the judge cannot be used.
    """
    settings, options = _settings(arguments), options_of(arguments)
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"the package {package} is missing; run `{install_command('serve')}`")
    _log_to_stderr()
    from tract.apps.server.running import is_loopback, listen, serve

    # Before the judge is loaded, which may take minutes.
    bound = listen(arguments.host, arguments.port)
    if settings.token is None and not is_loopback(bound):
        log.warning(
            "%s: who reaches this machine can use the judge without a token; set %s, or --host 127.0.0.1", arguments.host, DEFAULT_TOKEN_ENV
        )
    with signals.handled(_interrupt_message, once=True):
        from tract.apps.server.app import create_app
        from tract.judge.judge import Judge

        judge = Judge.from_pretrained(arguments.judge, **options)
        app = create_app(judge, settings)
    serve(app, bound)


def _settings(arguments: argparse.Namespace) -> ServerSettings:
    limits = {name: getattr(arguments, name) for name in vars(_LIMITS) if name != "token"}
    return ServerSettings(token=_token(arguments.token_env), **limits)


def _token(name: str | None) -> str | None:
    """The token, read from the environment: on the command line everyone on the machine could read it."""
    if name is None:
        return os.environ.get(DEFAULT_TOKEN_ENV)
    token = os.environ.get(name)
    if not token:
        raise ConfigError(f"--token-env: the environment variable {name} is not set; export it with the token that requests must bring")
    return token


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(MaskedFormatter("%(asctime)s %(levelname)s %(message)s"))
    # Whoever called this may have set up its own, for warnings alone.
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # uvicorn warns of what a client sends wrongly; its start and end are logged here.
    for name in ("uvicorn", "httpx", "openai"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _interrupt_message(number: int, reason: str) -> None:
    sys.stderr.write(f"interrupted ({signal.Signals(number).name}) while the judge was being loaded\n")
