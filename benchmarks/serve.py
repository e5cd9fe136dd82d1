"""Requests per second and latency of ``tract serve``: many clients at a time beside one that asks again and again.

    python benchmarks/serve.py --clients 64 --requests 512

The server is a process of its own on 127.0.0.1, with the tiny model and weights made at random, so every CoT is as long as it may be
and nothing is measured but the way of a request. Each request grades another response. A failure is any answer but 200, or a grade
without a score.
"""

from __future__ import annotations

import asyncio
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import httpx
from workload import ROOT, arguments, configured, device_of, loaded_judge, report

from tract.data.sources.rubric_check.generator import RubricCheck
from tract.models.saving import save_judge
from tract.models.tokenizers import load_tokenizer

# Longest wait for one answer, and for the end of the server.
_ANSWER_S = 120.0


@dataclass
class Measured:
    """What one way of asking found, over its rounds.

    Attributes:
        rates: requests per second of each round. seconds: of each request. codes, statuses: how often each came. failures: their number.
    """

    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    failures: int = 0


@contextmanager
def server(folder: Path, options: Sequence[object]) -> Iterator[str]:
    """The URL of a server with the model in a folder; it must end with status 0."""
    command = [sys.executable, "-m", "tract", "serve", "--judge", str(folder), "--port", "0", *map(str, options)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        while " at http://" not in (line := process.stderr.readline()):
            if not line:
                raise SystemExit(f"the server did not start: {' '.join(command)}")
            print(line, end="", file=sys.stderr)
        yield line.split(" at ")[1].split()[0]
        process.send_signal(signal.SIGTERM)
        if process.wait(_ANSWER_S) != 0:
            raise SystemExit(f"the server ended with status {process.returncode}")
    finally:
        process.kill()
        process.wait()


async def ask(url: str, bodies: Sequence[dict[str, object]], clients: int, into: Measured, *, counted: bool) -> None:
    """Sends all bodies, from so many clients at a time, each of which waits for its answer before it asks again."""
    waiting = iter(bodies)
    begun = time.perf_counter()

    async def client() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=_ANSWER_S) as http:
            for body in waiting:
                sent = time.perf_counter()
                code, status, failed = await answer_of(http, body)
                if counted:
                    into.seconds.append(time.perf_counter() - sent)
                into.codes[code] = into.codes.get(code, 0) + 1
                into.statuses[status] = into.statuses.get(status, 0) + 1
                into.failures += failed

    await asyncio.gather(*(client() for _ in range(clients)))
    rate = len(bodies) / (time.perf_counter() - begun)
    print(f"  {clients} clients: {rate:.4g} requests/s{'' if counted else ' (warming up)'}", file=sys.stderr, flush=True)
    if counted:
        into.rates.append(rate)


async def answer_of(http: httpx.AsyncClient, body: dict[str, object]) -> tuple[str, str, bool]:
    """(code, status of the grade, whether it is a failure)."""
    try:
        answer = await http.post("/v1/grade", json=body)
    except httpx.HTTPError as error:
        return type(error).__name__, "none", True
    if answer.status_code != 200:
        return str(answer.status_code), "none", True
    grade = json.loads(answer.text)
    return "200", grade["status"], grade["score"] is None


def bodies_of(count: int) -> list[dict[str, object]]:
    """Requests about generated tasks, each with a response of its own."""
    source = RubricCheck(
        n_questions=count, responses_per_question=1, n_ood_questions=0, annotations_per_response=1,
        n_constraints=4, cot_noise=0.0, score_noise=0.0, seed=0, kinds=None, wording="varied",
    )  # fmt: skip
    return [{"instruction": e.instruction, "response": e.response, "id": e.id} for e in islice(source.examples(), count)]


def percentile(seconds: Sequence[float], share: int) -> float:
    """Milliseconds that so many percent of the requests take at most."""
    if len(seconds) == 1:  # of which there are no quantiles
        return seconds[0] * 1000
    return statistics.quantiles(seconds, n=100, method="inclusive")[share - 1] * 1000


def main() -> None:
    """Measures, prints and writes."""
    parser = arguments(__doc__)
    parser.add_argument("--clients", type=int, default=64, help="that ask at a time (default 64)")
    parser.add_argument("--requests", type=int, default=512, help="of all clients in a round; one alone sends an eighth (default 512)")
    parser.add_argument("--tokens", type=int, default=32, help="of a CoT (default 32)")
    options = parser.parse_args()
    cfg, _ = configured("model=tiny", *options.overrides)
    device = device_of(cfg)
    bodies = bodies_of(options.requests)
    alone, together = Measured(), Measured()
    limits = ["--max-cot-tokens", options.tokens, "--n-cot", 1, "--least-score-mass", 0, "--batch-size", options.clients, "--seed", 0]
    with tempfile.TemporaryDirectory() as folder:
        save_judge(loaded_judge(cfg, device, "tree"), load_tokenizer(cfg.model), Path(folder))
        with server(Path(folder), [*limits, "--device", device.type]) as url:
            for number in range(options.rounds + 1):
                asyncio.run(ask(url, bodies[: max(1, options.requests // 8)], 1, alone, counted=number > 0))
                asyncio.run(ask(url, bodies, options.clients, together, counted=number > 0))
    by_round = [many / one for many, one in zip(together.rates, alone.rates, strict=True)]
    columns = ["clients", "requests", "requests/s", "p50 ms", "p99 ms", "failures", "ratio", "least", "most"]
    rows = []
    for clients, found, ratios in ((1, alone, [1.0]), (options.clients, together, by_round)):
        middle = [statistics.median(found.rates), percentile(found.seconds, 50), percentile(found.seconds, 99)]
        shares = [statistics.median(ratios), min(ratios), max(ratios)]
        rows.append([clients, len(found.seconds), *middle, found.failures, *shares])
    more = {"rounds": options.rounds, "tokens": options.tokens, "codes": together.codes, "statuses": together.statuses}
    report("serve", options.out, device, columns, rows, **more)
    if alone.failures + together.failures:
        raise SystemExit(f"{alone.failures + together.failures} requests failed: {alone.codes}, {together.codes}")


if __name__ == "__main__":
    main()
