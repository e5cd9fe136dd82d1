"""A judge that answers as it is told, and servers around it: in this process or in one of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import httpx

from tract.apps.server.app import create_app
from tract.apps.server.settings import ServerSettings
from tract.artifacts.judge_settings import BaseModel, JudgeSettings
from tract.common.errors import GenerationError
from tract.inference.sampling import Sampling
from tract.judge.grades import ERROR, OK, CotGrade, Grade, failed
from tract.judge.requests import GradeRequest
from tract.text.prompts import PromptTemplate
from tract.text.score_grid import ScoreGrid

ROOT = Path(__file__).resolve().parents[2]
BODY = {"instruction": "Name a prime above 10.", "response": "11", "rubric": "Is the answer right?"}


def settings_of(*, fixed_grid: bool = True) -> JudgeSettings:
    prompt = PromptTemplate("template", "", ("{instruction}", "{response}"), " Score: ", True, False, False, True)
    return JudgeSettings(
        name="stand-in", prompt=prompt, layout={"grid": ["1", "2", "3", "4", "5"]}, use_cot=True, predictor="rail", n_cot=2,
        sampling=Sampling(1.0, 0.9, 1.0, 64), seed=0, max_length=512, overlong="refuse", shorten=(), least_score_mass=0.5, dtype="float32",
        adapter=False, base_model=BaseModel("none"), fixed_grid=fixed_grid,
    )  # fmt: skip


def grade_of_length(request: GradeRequest) -> Grade:
    """A grade that tells the item: the mass lies on the score that the response's length gives."""
    score = float(1 + len(request.response) % 5)
    spread = {label: 0.9 if float(label) == score else 0.025 for label in ("1", "2", "3", "4", "5")}
    cot = CotGrade("short", score, OK, spread)
    return Grade(score, OK, spread, "short", ("short",), (score, score), None, 1.0, (cot,), False, False, score, request.shown_id)


class StandIn:
    """A judge without a model.

    Args:
        answer: the grade of a request. held: grades come when ``release`` is called, not at once.
    """

    def __init__(self, answer: Callable[[GradeRequest], Grade] = grade_of_length, *, held: bool = False, fixed_grid: bool = True) -> None:
        self.settings = settings_of(fixed_grid=fixed_grid)
        self.grid = ScoreGrid(("1", "2", "3", "4", "5"))
        self.asked: list[GradeRequest] = []
        self.closed = False
        self._answer = answer
        self._held = held
        self._waiting: list[tuple[GradeRequest, Future[Grade]]] = []

    @property
    def pending(self) -> int:
        return sum(not future.done() for _, future in self._waiting)

    @property
    def cancelled(self) -> int:
        return sum(future.cancelled() for _, future in self._waiting)

    def submit(self, request: GradeRequest) -> Future[Grade]:
        if self.closed:
            raise GenerationError("the judge is closed")
        future: Future[Grade] = Future()
        self.asked.append(request)
        if self._held:
            self._waiting.append((request, future))
        else:
            self._settle(request, future)
        return future

    def release(self) -> None:
        for request, future in self._waiting:
            if not future.done() and future.set_running_or_notify_cancel():
                self._settle(request, future)

    def _settle(self, request: GradeRequest, future: Future[Grade]) -> None:
        try:
            future.set_result(self._answer(request))
        except Exception as error:
            future.set_exception(error)

    def close(self) -> None:
        self.closed = True


def no_model(request: GradeRequest) -> Grade:
    return failed(request.shown_id, ERROR, "the model gave no finite logits")


def client_of(judge: Any, **limits: Any) -> httpx.AsyncClient:
    """A client of the application itself, without a socket."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(create_app(judge, ServerSettings(**limits))), base_url="http://judge")


# Serves a stand-in that takes a while, as ``tract serve`` would; says where.
PROGRAM = """
import sys, threading, time
sys.path.insert(0, {tests!r})
from stand_in import StandIn, grade_of_length
import tract.apps.server.command as command
from tract.apps.server.app import create_app
from tract.apps.server.running import listen, serve
from tract.apps.server.settings import ServerSettings

class Slow(StandIn):
    def submit(self, request):
        future = super().submit(request)
        timer = threading.Timer({seconds}, self.release)
        timer.daemon = True
        timer.start()
        return future
    def close(self):
        sys.stderr.write("closed\\n")

command._log_to_stderr()
def run():
    serve(create_app(Slow(held=True), ServerSettings({limits})), listen("127.0.0.1", 0))
{around}
sys.stderr.write("behind\\n")
"""


@contextlib.contextmanager
def server(seconds: float, limits: str = "", around: str = "run()") -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """(process, URL, lines that it has said) of a server whose judge takes so many seconds."""
    program = PROGRAM.format(tests=str(Path(__file__).parent), seconds=seconds, limits=limits, around=around)
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert process.stderr is not None
    said: list[str] = []
    try:
        while " at http://" not in (line := process.stderr.readline()):
            assert line, said
            said.append(line)
        said.append(line)
        reader = threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True)
        reader.start()
        yield process, line.split(" at ")[1].split()[0], said
        process.wait(30)
        reader.join(10)
    finally:
        process.kill()
        process.wait()
