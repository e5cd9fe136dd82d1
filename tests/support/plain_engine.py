"""An engine that answers requests by plain forward passes, and a small server that speaks the completions protocol with it."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from tract.inference.engines.engine import Ask, Reply
from tract.inference.engines.judge import EngineJudge
from tract.inference.judgement import Judgement, Prompt
from tract.inference.sampling import Sampling, draw_tokens

GREEDY = Sampling(temperature=0.0, top_p=0.9, repetition_penalty=1.03, max_cot_tokens=60)


class PlainEngine:
    """Draws token by token; what was asked is kept in ``asks``."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.asks: list[Ask] = []
        self.closed = False

    async def complete(self, ask: Ask) -> Reply:
        self.asks.append(ask)
        return self.answer(ask)

    async def close(self) -> None:
        self.closed = True

    def logits(self, ids: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            return self.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()

    def answer(self, ask: Ask) -> Reply:
        generator = torch.Generator().manual_seed(ask.seed)
        ids = list(ask.ids)
        first, drawn = None, []
        while len(drawn) < ask.max_tokens:
            logits = self.logits(ids)[-1:]
            first = logits if first is None else first
            seen = torch.zeros_like(logits, dtype=torch.bool)
            seen[0, ids] = True
            uniform = torch.rand(1, generator=generator, dtype=torch.float64)
            token = int(draw_tokens(logits, seen, uniform, ask.sampling))
            if token in ask.end_ids:
                return self._reply(ask, drawn, True, first)
            drawn.append(token)
            ids.append(token)
            if ask.stop and ask.stop in self.tokenizer.decode(drawn):
                break
        return self._reply(ask, drawn, False, first)

    def _reply(self, ask: Ask, drawn: list[int], ended: bool, first: torch.Tensor | None) -> Reply:
        logprobs = first.log_softmax(-1)[0] if first is not None else torch.zeros(0)
        return Reply(tuple(drawn), ended, {token: float(logprobs[token]) for token in ask.logprob_ids})


@contextmanager
def served(
    engine: PlainEngine, *, dialect: str, key: str | None = None, fail_first: int = 0, echoes: bool = True
) -> Iterator[tuple[str, list[Any]]]:
    """(address, requests) of a server on this machine.

    Args:
        dialect: "vllm" knows token ids and chosen log-probabilities; "openai" nothing but the protocol. key: wanted of clients.
        fail_first: so many completions are answered by 503. echoes: whether prompts are echoed with log-probabilities.
    """
    requests: list[Any] = []
    failures = [fail_first]

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

        def send(self, content: Any, status: int = 200) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def allowed(self) -> bool:
            if key is not None and self.headers["Authorization"] != f"Bearer {key}":
                self.send({"error": {"message": "wrong key"}}, 401)
                return False
            return True

        def do_GET(self) -> None:  # noqa: N802
            if self.allowed():
                self.send({"object": "list", "data": [{"id": "judge", "object": "model"}]})

        def do_POST(self) -> None:  # noqa: N802
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self.allowed():
                return
            requests.append(asked)
            if failures[0]:
                failures[0] -= 1
                self.send({"error": {"message": "busy"}}, 503)
                return
            self.send(
                {
                    "id": "1",
                    "object": "text_completion",
                    "created": 0,
                    "model": "judge",
                    "choices": [_choice(engine, asked, dialect, echoes)],
                }
            )

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", requests
    finally:
        server.shutdown()
        server.server_close()


def _choice(engine: PlainEngine, asked: dict[str, Any], dialect: str, echoes: bool) -> dict[str, Any]:
    prompt = asked["prompt"]
    ids = engine.tokenizer(prompt, add_special_tokens=False)["input_ids"] if isinstance(prompt, str) else prompt
    extended = dialect == "vllm"
    end_id = engine.tokenizer.eos_token_id
    ask = Ask(
        tuple(ids),
        asked["max_tokens"],
        Sampling(asked["temperature"], asked.get("top_p", 1.0), asked.get("repetition_penalty", 1.0), 1),
        asked.get("seed", 0),
        tuple(asked.get("stop_token_ids") or ()) if extended else (end_id,),
        (asked.get("stop") or [None])[0],
        tuple(asked.get("logprob_token_ids") or ()),
    )
    reply = engine.answer(ask)
    drawn = list(reply.ids)
    text = engine.tokenizer.decode(drawn, skip_special_tokens=True)
    stopped = reply.ended or bool(ask.stop and ask.stop in text)
    choice: dict[str, Any] = {"index": 0, "text": text, "finish_reason": "stop" if stopped else "length", "logprobs": None}
    if extended and asked.get("return_token_ids"):
        choice |= {"token_ids": [*drawn, *([ask.end_ids[0]] if reply.ended else [])], "prompt_token_ids": list(ids)}
    if ask.logprob_ids:
        choice["logprobs"] = {"top_logprobs": [{f"token_id:{token}": value for token, value in reply.logprobs.items()}]}
    if asked.get("echo") and echoes:
        table = engine.logits(list(ids)).log_softmax(-1)
        choice["logprobs"] = {"token_logprobs": [None, *(float(table[k, token]) for k, token in enumerate(ids[1:]))]}
    return choice


def judge_all(judge: EngineJudge, prompts: Sequence[Prompt], n_cot: int, *, rows: int = 4, free: bool = True) -> list[Judgement]:
    """All judgements, ascending by (row, sample)."""
    parts = [[prompt] for prompt in prompts]
    found = judge.judge_parts(parts, n_cot, rows=rows, without_cot=True, free=free, progress=lambda _: None)
    return sorted((j for some in found for j in some), key=lambda j: (j.row, j.sample))


def close(found: Judgement, expected: Judgement, atol: float = 1e-5) -> None:
    """Asserts that two judgements are equal but for the rounding of probabilities."""
    assert dataclasses.replace(found, probabilities=()) == dataclasses.replace(expected, probabilities=())
    torch.testing.assert_close(torch.tensor(found.probabilities), torch.tensor(expected.probabilities), rtol=0, atol=atol)
