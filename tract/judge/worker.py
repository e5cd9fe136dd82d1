"""A live model behind a queue: whatever threads ask for is judged together, and new requests join those that are being sampled.

``LocalWorker`` runs a model of this process, ``EngineWorker`` asks an engine (vLLM, a server). A worker knows token ids and judgements;
requests and grades are ``tract.judge.judge``'s.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, InvalidStateError
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import nn

from tract.errors import GenerationError
from tract.generation.chat_engine import ChatEngine, chat_judgement
from tract.generation.engine import Engine, EngineRequests
from tract.generation.hf import Begin, HFJudge
from tract.generation.judgement import NO_COT, Judgement, Prompt
from tract.generation.sampling import Sampling
from tract.layout import SequenceLayout
from tract.prompts import PromptText

# An engine finds a request waiting whenever one ends, if an eighth more than it takes at a time are sent to it.
_WAITING_SHARE = 8
# Readings that a judge keeps at a time.
MOST_READINGS = 64
# Longest wait for a thread at the end of the process.
_END_S = 10.0


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Reading:
    """How scores are read; works that share one are judged together. What is kept for one goes with its last user.

    Attributes:
        layout: cue, grid and end of turn. sampling: how CoTs are drawn. free: whether the judge writes its own score too.
    """

    layout: SequenceLayout
    sampling: Sampling
    free: bool


@dataclass(frozen=True, slots=True)
class Work:
    """A prompt to judge: ``n_cot`` CoTs, or with 0 the score right behind the prompt; its text is for who takes no token ids."""

    prompt: Prompt
    text: PromptText
    n_cot: int
    reading: Reading

    @property
    def expected(self) -> int:
        """How many judgements it makes."""
        return max(self.n_cot, 1)


class Worker(Protocol):
    """Judges what it is given, in threads of its own."""

    def submit(self, work: Work) -> Future[list[Judgement]]:
        """The judgements, when they are made; an error of this work alone is the future's.

        Raises:
            ClosedError: if it was closed.
        """

    def close(self) -> None:
        """Ends: what waits is cancelled, what is being made as well."""


class ClosedError(GenerationError):
    """The worker takes nothing any more."""

    def __init__(self) -> None:
        super().__init__("the judge is closed; load it again with Judge.from_pretrained")


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
        self._judges: WeakKeyDictionary[Reading, HFJudge] = WeakKeyDictionary()
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
            thread.join(_END_S)

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

    def _next(self, reading: Reading, going: dict[int, _Task], sampled: int) -> Begin | None:
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

    def _flow(self, begin: Callable[[int], Begin | None], reading: Reading, going: dict[int, _Task]) -> None:
        """Judges until nothing begins any more; ``going`` holds what is being made."""
        for made in self._judge_of(reading).flow(begin, free=reading.free):
            for judgement in made:
                task = going[judgement.row]
                task.made.append(judgement)
                if len(task.made) == task.work.expected:
                    del going[judgement.row]
                    task.future.set_result(task.made)

    def _judge_of(self, reading: Reading) -> HFJudge:
        if reading not in self._judges:
            self._judges[reading] = HFJudge(self._model, reading.layout, reading.sampling, self._seed, self._autocast)
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


# One judgement: the work, the number of the CoT.
Asking = Callable[[Work, int], Coroutine[Any, Any, Judgement]]


def by_token_ids(engine: Engine, seed: int) -> Asking:
    """Asks an engine with token ids."""
    requests: WeakKeyDictionary[Reading, EngineRequests] = WeakKeyDictionary()

    async def ask(work: Work, sample: int) -> Judgement:
        reading = work.reading
        own = requests.get(reading)
        if own is None:
            own = requests[reading] = EngineRequests(engine, reading.layout, reading.sampling, seed)
        if sample == NO_COT:
            return await own.given(work.prompt, NO_COT, ())
        return await own.sampled(work.prompt, sample, reading.free)

    return ask


def by_text(engine: ChatEngine, seed: int) -> Asking:
    """Asks a hosted chat model with texts."""

    async def ask(work: Work, sample: int) -> Judgement:
        layout, texts = work.reading.layout, (work.text.system, work.text.user)
        return await chat_judgement(engine, work.prompt, texts, sample, layout.cue, layout.grid, work.reading.sampling, seed)

    return ask


class EngineWorker:
    """Requests to an engine, from a loop in a thread of its own.

    Args:
        start: starts the engine or connects to it; done at once. seed: of all draws. rows: CoTs that the engine takes at a time.
        asking: how the engine is asked, from the engine and the seed.

    Raises:
        ConfigError: if the engine does not start.
    """

    def __init__(
        self,
        start: Callable[[], Coroutine[Any, Any, Any]],
        *,
        seed: int,
        rows: int,
        asking: Callable[[Any, int], Asking] = by_token_ids,
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tract-judge", daemon=True)
        self._thread.start()
        self._state: _EngineState | None = None
        try:
            self._engine = asyncio.run_coroutine_threadsafe(start(), self._loop).result()
        except BaseException:
            _end_loop(self._loop, self._thread)
            raise
        self._state = _EngineState(asking(self._engine, seed), rows + max(1, rows // _WAITING_SHARE))
        # Also when the last user forgets to close it.
        self._finalizer = weakref.finalize(self, _end_engine, self._engine, self._loop, self._thread)

    def submit(self, work: Work) -> Future[list[Judgement]]:
        """See ``Worker``."""
        if not self._finalizer.alive:
            raise ClosedError
        assert self._state is not None
        return asyncio.run_coroutine_threadsafe(self._state.judged(work), self._loop)

    def close(self) -> None:
        """See ``Worker``."""
        self._finalizer()


class _EngineState:
    """What the coroutines share; it does not know the worker, so that this can go."""

    def __init__(self, ask: Asking, window: int) -> None:
        self._ask = ask
        self._places = asyncio.Semaphore(window)

    async def judged(self, work: Work) -> list[Judgement]:
        """The judgements of a work; where one of its CoTs fails, the others are given up."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._one(work, sample)) for sample in (range(work.n_cot) if work.n_cot else (NO_COT,))]
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _one(self, work: Work, sample: int) -> Judgement:
        async with self._places:
            return await self._ask(work, sample)


# Loops hold their tasks weakly.
_ENDING: set[asyncio.Task[None]] = set()


def _end_engine(engine: Any, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    async def end() -> None:
        going = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)
        await engine.close()

    if threading.current_thread() is thread:  # closed by a callback, or collected there: nobody could wait for it
        ending = loop.create_task(end())
        _ENDING.add(ending)
        ending.add_done_callback(lambda _: loop.stop())
        ending.add_done_callback(_ENDING.discard)
        return
    try:
        asyncio.run_coroutine_threadsafe(end(), loop).result()
    finally:
        _end_loop(loop, thread)


def _end_loop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    thread.join(_END_S)
    if not thread.is_alive():
        loop.close()


def settle(future: Future[Any], result: Any) -> None:
    """Gives a future its result, unless whoever wanted it has cancelled it meanwhile."""
    try:
        if future.set_running_or_notify_cancel():
            future.set_result(result)
    except InvalidStateError:
        return
