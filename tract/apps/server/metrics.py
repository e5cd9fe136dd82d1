"""What a server counts, as Prometheus reads it. Labels are fixed names: no text of a request gets into them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tract.judge.grades import STATUSES, Grade

GRADE, BATCH, JUDGE = "/v1/grade", "/v1/grade/batch", "/v1/judge"
HEALTH, METRICS, DOCS, SPEC = "/health", "/metrics", "/docs", "/openapi.json"
PATHS = (GRADE, BATCH, HEALTH, METRICS, JUDGE, DOCS, SPEC)
# Of whatever else is asked for.
OTHER = "other"
# Upper ends of the latency histogram, in seconds: from a cached reading to many long CoTs.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """The counters of one server, in a separate registry, so that several in a process do not mix.

    Args:
        pending: says how many items wait or are graded.
    """

    def __init__(self, pending: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter("tract_requests", "Answered requests.", ("path", "code"), registry=self._registry)
        self._grades = Counter("tract_grades", "Grades by status.", ("status",), registry=self._registry)
        self._seconds = Histogram(
            "tract_request_seconds", "Seconds from a request's head to the end of its answer.", ("path",),
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        Gauge("tract_queue_items", "Items that wait or are graded.", registry=self._registry).set_function(pending)
        for status in STATUSES:  # a status that never came is 0, not absent
            self._grades.labels(status)

    def request(self, path: str, code: int, seconds: float) -> None:
        """Counts one answered request; ``code`` is 499 where the client had gone."""
        label = path if path in PATHS else OTHER
        self._requests.labels(label, str(code)).inc()
        self._seconds.labels(label).observe(seconds)

    def grades(self, grades: Iterable[Grade]) -> None:
        """Counts grades that were given."""
        for grade in grades:
            self._grades.labels(grade.status).inc()

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)
