"""A real judge behind the application, and behind ``tract serve``."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from judge_items import make_rubric_examples
from stand_in import ROOT, client_of
from talking import PROMPT, TALKING

from tract import GradeRequest, Judge

REQUESTS = [GradeRequest(example.instruction, example.response) for example in make_rubric_examples(6)]
BODIES = [{"instruction": request.instruction, "response": request.response} for request in REQUESTS]
OPTIONS = {**TALKING, "n_cot": 2, "max_cot_tokens": 24}


@pytest.fixture(scope="module")
def judge(talking_folder: str) -> Iterator[Judge]:
    with Judge.from_pretrained(talking_folder, **OPTIONS) as found:
        yield found


def same(served: dict[str, Any], own: dict[str, Any]) -> None:
    """Equal but for rounding, which may differ with what was judged beside it."""
    assert (served["id"], served["status"], served["feedbacks"]) == (own["id"], own["status"], list(own["feedbacks"]))
    assert served["score"] == pytest.approx(own["score"], abs=1e-5)
    assert served["distribution"] == pytest.approx(own["distribution"], abs=1e-5)


def test_concurrent_clients_get_the_grades_of_the_judge_itself(judge: Judge) -> None:
    async def ask() -> tuple[list[httpx.Response], httpx.Response]:
        async with client_of(judge) as client:
            alone = await asyncio.gather(*(client.post("/v1/grade", json=body, timeout=60) for body in BODIES))
            return alone, await client.post("/v1/grade/batch", json={"items": BODIES[::-1]}, timeout=60)

    alone, batch = asyncio.run(ask())
    for request, answer, item in zip(REQUESTS, alone, batch.json()["grades"][::-1], strict=True):
        own = judge.submit(request).result().to_dict()
        same(answer.json(), own)
        same(item, own)
    assert sum(batch.json()["counts"].values()) == len(BODIES)
    assert judge.pending == 0


def test_what_a_judge_cannot_grade_is_an_answer_with_its_status(judge: Judge) -> None:
    async def ask() -> tuple[httpx.Response, httpx.Response]:
        async with client_of(judge) as client:
            long = await client.post("/v1/grade", json={**BODIES[0], "response": "word " * 4000}, timeout=60)
            rubric = {"criteria": "Is it right?", "descriptions": {"7": "no"}}  # a grid of one score
            return long, await client.post("/v1/grade", json={**BODIES[0], "rubric": rubric}, timeout=60)

    long, one = asyncio.run(ask())
    assert (long.status_code, long.json()["status"], long.json()["score"]) == (200, "over_length", None)
    assert (one.status_code, one.json()["status"], one.json()["score"]) == (200, "error", None)
    assert long.json()["error"]
    assert one.json()["error"]


@pytest.mark.slow
def test_the_command_serves_a_judge_and_ends_with_status_0(talking_folder: str, tmp_path: Path) -> None:
    wording = tmp_path / "prompt.yaml"
    wording.write_text(yaml.safe_dump(PROMPT), encoding="utf-8")
    options = ["--prompt", str(wording), "--n-cot", "2", "--max-cot-tokens", "24", "--max-length", "1500", "--least-score-mass", "0"]
    command = [sys.executable, "-m", "tract", "serve", "--judge", talking_folder, "--port", "0", *options]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = []
        while " at http://" not in (line := process.stderr.readline()):
            assert line, said
            said.append(line)
        url = line.split(" at ")[1].split()[0]
        answer = httpx.post(f"{url}/v1/grade", json=BODIES[0], timeout=60)
        assert (answer.status_code, len(answer.json()["feedbacks"])) == (200, 2)
        assert json.loads(httpx.get(f"{url}/v1/judge").text)["n_cot"] == 2
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) == 0
        assert "Traceback" not in rest
        assert BODIES[0]["response"] not in rest
    finally:
        process.kill()
        process.wait()
