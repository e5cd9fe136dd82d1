"""A judge's model in this process, behind a queue."""

from __future__ import annotations

import atexit
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

import torch
from torch import nn

from tract.inference.hf.judge import Begin, HFJudge
from tract.inference.hf.rows import hf_judge_of
from tract.inference.judgement import Judgement
from tract.inference.worker import CLOSE_TIMEOUT_S, ClosedError, ReadoutConfig, Work


@dataclass(slots=True)
class _Task:
    work: Work
    future: Future[list[Judgement]]
    made: list[Judgement] = field(default_factory=list)


class LocalWorker:
    """A model of this process; a thread works while there is work, and there is none while there is not.

    Args:
        model: a causal LM in evaluation mode on its device. seed: of all draws. autocast: dtype of the arithmetic where it is not the
            weights' own. rows: the most CoTs that are sampled at a time; those of one request always together.
    """

    def __init__(self, model: nn.Module, *, seed: int, autocast: torch.dtype | None, rows: int) -> None:
        self._model = model
        self._seed = seed
        self._autocast = autocast
        self._rows = rows
        self._lock = threading.Lock()
        self._waiting: deque[_Task] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._numbers = count()
        self._judges: weakref.WeakKeyDictionary[ReadoutConfig, HFJudge] = weakref.WeakKeyDictionary()
        _LIVE.add(self)

    def submit(self, work: Work) -> Future[list[Judgement]]:
        """See ``Worker``."""
        # The row tells requests apart that have the same content, and so the same id.
        task = _Task(replace(work, prompt=replace(work.prompt, row=next(self._numbers))), Future())
        with self._lock:
            if self._closed:
                raise ClosedError
            self._waiting.append(task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="tract-judge", daemon=True)
                self._thread.start()
        return task.future

    def close(self) -> None:
        """See ``Worker``."""
        with self._lock:
            self._closed = True
            waiting, thread = list(self._waiting), self._thread
            self._waiting.clear()
        for task in waiting:
            task.future.cancel()
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_TIMEOUT_S)

    def _work(self) -> None:
        """Works off what waits, one kind of reading after the other, and ends."""
        while True:
            with self._lock:
                while self._waiting and self._waiting[0].future.cancelled():
                    self._waiting.popleft()
                if not self._waiting:
                    self._thread = None
                    return
                reading = self._waiting[0].work.reading
            going: dict[int, _Task] = {}
            try:
                self._flow(partial(self._next, reading, going), reading, going)
            except ClosedError:
                for task in going.values():
                    _fail(task, CancelledError())
            except Exception as error:
                # What failed is still held by its frames, its cache above all, for which memory may have run out.
                traceback.clear_frames(error.__traceback__)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                if not going:  # nothing has begun, and would not the next time either
                    with self._lock:
                        going = {0: self._waiting.popleft()} if self._waiting else {}
                self._one_by_one(list(going.values()), error)

    def _next(self, reading: ReadoutConfig, going: dict[int, _Task], sampled: int) -> Begin | None:
        """What begins now: the first that wait, as long as they read alike, want as many CoTs and there is room."""
        if self._closed:
            raise ClosedError
        begun: list[_Task] = []
        with self._lock:
            while self._waiting:
                work = self._waiting[0].work
                room = self._rows - sampled - len(begun) * work.expected
                alike = work.reading is reading and (not begun or work.n_cot == begun[0].work.n_cot)
                if not alike or (room < work.expected and (sampled or begun)):
                    break
                task = self._waiting.popleft()
                if task.future.set_running_or_notify_cancel():
                    begun.append(task)
        if not begun:
            return None
        going.update((task.work.prompt.row, task) for task in begun)
        n_cot = begun[0].work.n_cot
        return Begin([task.work.prompt for task in begun], n_cot, without_cot=n_cot == 0)

    def _flow(self, begin: Callable[[int], Begin | None], reading: ReadoutConfig, going: dict[int, _Task]) -> None:
        """Judges until nothing begins any more; ``going`` holds what is being made."""
        for made in self._judge_of(reading).flow(begin, free=reading.free):
            for judgement in made:
                task = going[judgement.row]
                task.made.append(judgement)
                if len(task.made) == task.work.expected:
                    del going[judgement.row]
                    task.future.set_result(task.made)

    def _judge_of(self, reading: ReadoutConfig) -> HFJudge:
        if reading not in self._judges:
            self._judges[reading] = hf_judge_of(self._model)(self._model, reading.layout, reading.sampling, self._seed, self._autocast)
        return self._judges[reading]

    def _one_by_one(self, tasks: list[_Task], error: Exception) -> None:
        """Judges each by itself after an error among them, so that only what causes it fails."""
        if len(tasks) == 1:
            _fail(tasks[0], error)
            return
        for task in tasks:
            if self._closed:
                _fail(task, CancelledError())
                continue
            alone = {task.work.prompt.row: task}
            task.made.clear()
            begins = iter([Begin([task.work.prompt], task.work.n_cot, without_cot=task.work.n_cot == 0)])
            try:
                self._flow(lambda _, begins=begins: next(begins, None), task.work.reading, alone)  # type: ignore[misc]
            except Exception as own:
                _fail(task, own)


def _fail(task: _Task, error: BaseException) -> None:
    if not task.future.done():
        task.future.set_exception(error)


# At the end of the process, torch must not be at work in a thread any more.
_LIVE: weakref.WeakSet[LocalWorker] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for worker in list(_LIVE):
        worker.close()
