"""The command ``tract`` in this process, with a judge of no model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from graders import StandIn

from tract.apps.cli.main import main

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tract(capsys: pytest.CaptureFixture[str]) -> Command:
    """(exit status, stdout, stderr) of a command."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            main([str(argument) for argument in arguments])
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """The judge that commands get; ``options`` is what they asked for."""
    found = StandIn()

    def opened(path: str, options: dict[str, object]) -> StandIn:
        found.options = {"judge": path, **options}  # type: ignore[attr-defined]
        return found

    for command in ("grade", "calibrate"):
        monkeypatch.setattr(f"tract.apps.cli.{command}.open_judge", opened)
        monkeypatch.setattr(f"tract.apps.cli.{command}.check_rubric", lambda *_, **__: None)  # there are no files of it
    return found
