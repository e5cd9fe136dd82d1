"""The judge that people use: ``Judge.from_pretrained(...).grade(instruction, response, rubric)``."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from tract.artifacts.judge_files import JudgeFiles
from tract.artifacts.judge_options import sampling_with
from tract.artifacts.judge_settings import JudgeSettings
from tract.artifacts.standalone_judges import cache_folder, hosted_judge, open_judge_files
from tract.common.errors import ConfigError, DataError
from tract.data.readers.fields import is_missing
from tract.inference.judgement import Judgement, Prompt
from tract.inference.sampling import Sampling
from tract.inference.worker import ClosedError, Work, Worker, set_result_unless_cancelled
from tract.judge.backends import BackendOptions, start_worker
from tract.judge.grades import ERROR, OVER_LENGTH, Grade, failed, failed_by, grade_of
from tract.judge.prometheus import PrometheusMethods
from tract.judge.readouts import Readouts
from tract.judge.relative import Comparison, compared, in_one_order
from tract.judge.rendering import ignored_fields, rendered_prompt
from tract.judge.requests import GradeRequest, whole_number_as_text
from tract.text.schema import Rubric
from tract.text.score_grid import ScoreGrid

log = logging.getLogger(__name__)

# Requests of a stream that are under way, for each place in a batch: so that one waits whenever a place is free.
_AHEAD = 4


class Judge(PrometheusMethods):
    """A judge at work. Requests of all threads and tasks are judged together; close it, or use it in a ``with`` statement.

    Args:
        files: what it is made from. worker: runs its model. batch_size: CoTs that are sampled at a time.
        calibrated: whether its calibration is applied.

    Raises:
        ConfigError: if it is to be calibrated and has no calibration.
    """

    def __init__(self, files: JudgeFiles, worker: Worker, *, batch_size: int, calibrated: bool) -> None:
        if calibrated:
            files.check_calibrated()
        self._files = files
        self._worker = worker
        self._batch_size = batch_size
        self._calibration = files.settings.calibration if calibrated else None
        self._lock = threading.Lock()
        self._pending = 0
        self._warned: set[str] = set()
        self._readouts = Readouts(files)

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | Path,
        backend: str = "hf",
        *,
        calibrated: bool = False,
        batch_size: int = 16,
        device: str | None = None,
        base_url: str | None = None,
        served_model: str | None = None,
        api: str = "vllm",
        api_key_env: str = "OPENAI_API_KEY",
        timeout_s: float = 600.0,
        max_retries: int = 5,
        extra_body: Mapping[str, Any] | None = None,
        vllm: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Judge:
        """Loads a judge.

        Args:
            path_or_hub_id: an exported judge, a run, any chat model (folder or hub id), or "package:NAME"; see ``open_judge_files``.
            backend: "hf": this process; "vllm": vLLM's engine; "auto": vLLM where a CUDA device and the package are and it serves the
                judge, else this process; "openai": a server (``base_url``) that serves this judge already.
            calibrated: apply the calibration that ``tract calibrate`` fitted.
            batch_size: CoTs sampled at a time; those of one request together. device: of "hf"; None for a GPU if there is one.
            base_url, served_model, api, api_key_env, timeout_s, max_retries: of "openai"; ``api`` is "vllm" (token ids and
                log-probabilities), "openai" (the protocol of completions) or "chat" (that of chats: ``path_or_hub_id`` is then the
                name of a hosted model, which reads and writes texts).
            extra_body: of "chat": further parameters of each request, as the server knows them, e.g. {"reasoning_effort": "low"}; they
                are part of the fingerprint.
            vllm: of "vllm": tensor_parallel_size, gpu_memory_utilization, kv_cache_gib, enforce_eager, engine.
            options: see ``open_judge_files``: revision, base_model, grid, prompt, cache_dir, trust_remote_code, n_cot, predictor,
                temperature, top_p, repetition_penalty, max_cot_tokens, seed, max_length, overlong, least_score_mass, dtype, name.

        Raises:
            ConfigError: if it cannot be found, loaded or started.
        """
        hosted = backend == "openai" and api == "chat"
        if hosted:
            files = hosted_judge(served_model or path_or_hub_id, extra_body=extra_body, **options)
        elif extra_body is not None:
            raise ConfigError("extra_body: has no effect but with backend='openai' and api='chat'; leave it out, or give these")
        else:
            files = open_judge_files(path_or_hub_id, **options)
        how = BackendOptions(
            device=device,
            batch_size=batch_size,
            base_url=base_url,
            served_model=served_model,
            api=api,
            api_key_env=api_key_env,
            timeout_s=timeout_s,
            max_retries=max_retries,
            vllm=vllm or {},
            cache=cache_folder(options.get("cache_dir")),
        )
        if calibrated:
            files.check_calibrated()  # before weights are loaded
        return cls(files, start_worker(backend, files, how), batch_size=batch_size, calibrated=calibrated)

    @property
    def settings(self) -> JudgeSettings:
        """How it works."""
        return self._files.settings

    @property
    def grid(self) -> ScoreGrid:
        """The scores that it gives, where the rubric does not bring its own."""
        return self._files.layout.grid

    @property
    def fingerprint(self) -> str:
        """Changes when weights, wording, layout or a setting that moves a score does, and with the calibration that is applied."""
        return self._files.fingerprint + (f" {self._calibration}" if self._calibration else "")

    @property
    def pending(self) -> int:
        """Requests that were submitted and have not ended."""
        return self._pending

    def grade(
        self,
        instruction: str,
        response: str,
        rubric: Rubric | str | None = None,
        reference_answer: str | None = None,
        *,
        n_cot: int | None = None,
        id: str | None = None,
    ) -> Grade:
        """The grade of one response; what goes wrong with it is in its status.

        Args:
            instruction: what was asked. response: what is graded. rubric: a ``Rubric``, or a text. reference_answer: worth the best score.
            n_cot: CoTs to sample and average; None for the settings' number. id: for the grade.

        Raises:
            DataError: if an argument is none that can be graded, e.g. no text.
        """
        return self.submit(_request(instruction, response, rubric, reference_answer, n_cot, id)).result()

    async def agrade(
        self,
        instruction: str,
        response: str,
        rubric: Rubric | str | None = None,
        reference_answer: str | None = None,
        *,
        n_cot: int | None = None,
        id: str | None = None,
    ) -> Grade:
        """As ``grade``; any number can be awaited at a time, and they are judged together."""
        return await asyncio.wrap_future(self.submit(_request(instruction, response, rubric, reference_answer, n_cot, id)))

    def grade_batch(self, requests: Iterable[GradeRequest | Mapping[str, Any]], *, progress: bool = True) -> list[Grade]:
        """The grades of requests (or mappings with the arguments of ``grade``), in order.

        Args:
            progress: show a bar on a terminal.
        """
        found = list(requests)
        grades = self.grade_stream(found)
        if not progress:
            return list(grades)
        from rich.console import Console
        from rich.progress import track

        console = Console(stderr=True)
        return list(track(grades, "Grading", total=len(found), console=console, disable=not console.is_terminal))

    def grade_stream(self, requests: Iterable[GradeRequest | Mapping[str, Any]], *, ahead: int | None = None) -> Iterator[Grade]:
        """Yields the grades of requests in order, while later ones are judged; holds no more than ``ahead`` of them in memory.

        Args:
            ahead: requests under way at a time; None for four times ``batch_size``.
        """
        most = max(1, self._batch_size * _AHEAD if ahead is None else ahead)
        waiting: deque[Future[Grade]] = deque()
        try:
            for request in requests:
                waiting.append(self._submitted(request))
                if len(waiting) >= most:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # where nobody wants the rest
            for future in waiting:
                future.cancel()

    def compare(
        self,
        instruction: str,
        response_a: str,
        response_b: str,
        rubric: Rubric | str | None = None,
        reference_answer: str | None = None,
        *,
        n_cot: int | None = None,
        tie_margin: float | None = None,
    ) -> Comparison:
        """Which of two responses is better: each is graded by itself, and the scores are compared.

        Args:
            tie_margin: scores that differ by no more are a tie, in points; None for what rounding can do.
        """
        requests = [_request(instruction, response, rubric, reference_answer, n_cot, None) for response in (response_a, response_b)]
        a, b = in_one_order(requests, self.submit)
        return compared(a, b, tie_margin)

    def submit(self, request: GradeRequest, *, sampling: Sampling | None = None) -> Future[Grade]:
        """The grade of a request, when it is made; returns at once, from any thread.

        Args:
            request: what to grade. sampling: how its CoTs are drawn, in place of the settings'.

        Returns:
            A future whose result is a grade, whatever goes wrong with this request. Cancelling it drops the request if it waits.

        Raises:
            DataError: if it is no request. ClosedError (a GenerationError): if the judge is closed.
        """
        request = GradeRequest.of(request)
        result: Future[Grade] = Future()
        try:
            self._warn_of_ignored(request)
            work, rubric_grid, cut = self._work(request, sampling)
            if isinstance(work, Grade):
                result.set_result(work)
                return result
            inner = self._worker.submit(work)
        except ClosedError:
            raise
        except Exception as error:
            result.set_result(failed_by(request.shown_id, error))
            return result
        self._count(1)
        inner.add_done_callback(lambda done: self._finish(request, done, result, rubric_grid, cut))
        result.add_done_callback(lambda done: inner.cancel() if done.cancelled() else None)
        return result

    def close(self) -> None:
        """Ends the judge: what waits is cancelled, engines that it started are stopped."""
        self._worker.close()

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _submitted(self, request: GradeRequest | Mapping[str, Any]) -> Future[Grade]:
        """A request of a stream; one that cannot be used is a grade too, so that the others go on."""
        try:
            return self.submit(GradeRequest.of(request))
        except DataError as error:
            given = request.get("id") if isinstance(request, Mapping) else None
            result: Future[Grade] = Future()
            result.set_result(failed("" if is_missing(given) else str(whole_number_as_text(given)), ERROR, str(error)))
            return result

    def _work(self, request: GradeRequest, sampling: Sampling | None) -> tuple[Work | Grade, ScoreGrid, bool]:
        """(what the worker is asked, or the grade of what does not fit; the grid; whether the prompt was shortened)."""
        settings = self.settings
        reading = self._readouts.of(request.rubric, sampling or settings.sampling)
        layout = reading.layout
        found = rendered_prompt(request, layout, settings, reading.sampling)
        if found.refusal is not None:
            return failed(request.shown_id, OVER_LENGTH, found.refusal), layout.grid, False
        n_cot = (request.n_cot or settings.n_cot) if settings.use_cot else 0
        # Draws belong to what the judge is shown: what its prompt has no place for moves nothing.
        prompt = Prompt(hashlib.sha256(repr(list(found.ids)).encode()).hexdigest()[:16], 0, found.ids)
        return Work(prompt, found.prompt, n_cot, reading), layout.grid, found.shortened

    def _count(self, by: int) -> None:
        with self._lock:
            self._pending += by

    def _finish(self, request: GradeRequest, done: Future[list[Judgement]], result: Future[Grade], grid: ScoreGrid, cut: bool) -> None:
        """Makes the grade of what the worker found."""
        self._count(-1)
        if done.cancelled() or isinstance(done.exception(), (CancelledError, asyncio.CancelledError)):
            result.cancel()
            return
        error = done.exception()
        if error is None:
            try:
                set_result_unless_cancelled(result, self._grade(request, done.result(), grid, cut))
                return
            except Exception as own:
                error = own
        set_result_unless_cancelled(result, failed_by(request.shown_id, error))

    def _grade(self, request: GradeRequest, judgements: Sequence[Judgement], grid: ScoreGrid, cut: bool) -> Grade:
        settings = self.settings
        grade = grade_of(
            judgements,
            grid,
            settings.prompt.cue,
            request_id=request.shown_id,
            predictor=settings.predictor,
            least_score_mass=settings.least_score_mass,
            calibration=self._calibration,
            shortened=cut,
        )
        return replace(grade, ignored=ignored_fields(request, settings))

    def _warn_of_ignored(self, request: GradeRequest) -> None:
        for name in ignored_fields(request, self.settings):
            if name not in self._warned:
                self._warned.add(name)
                log.warning("%s: its prompt has no place for a %s, so it is not shown what is given", self.settings.name, name)

    def _sampling_with(self, changed: Mapping[str, Any]) -> Sampling | None:
        return sampling_with(self.settings.sampling, changed) if changed else None


def _request(
    instruction: str, response: str, rubric: Rubric | str | None, reference_answer: str | None, n_cot: int | None, id: str | None
) -> GradeRequest:
    return GradeRequest.of(
        {"instruction": instruction, "response": response, "rubric": rubric, "reference_answer": reference_answer, "n_cot": n_cot, "id": id}
    )
