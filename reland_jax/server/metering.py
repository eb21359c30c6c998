"""What Prometheus reads at /metrics."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Meters:
    """Counters of one server, apart from those of other servers in the process."""

    def __init__(self) -> None:
        """All at zero."""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._requests = Counter(
            "reland_requests", "Requests by path and status.", ("path", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "reland_request_seconds", "Seconds from the request to the last byte of its answer.", ("path",),
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._batches = Histogram(
            "reland_batch_size", "Requests that the device answered together.", buckets=_SIZES,
            registry=self._registry,
        )  # fmt: skip
        self._waiting = Gauge("reland_waiting", "Requests that wait for the device.", registry=self._registry)
        self._swaps = Counter(
            "reland_swaps", "New bundles by model and whether they went into service.", ("model", "result"),
            registry=self._registry,
        )  # fmt: skip

    def request(self, path: str, status: int, seconds: float) -> None:
        """Counts an answer; `path` is a known one, since every label is kept for good."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def batch(self, size: int) -> None:
        """Counts a batch."""
        self._batches.observe(size)

    def swap(self, model: str, in_service: bool) -> None:
        """Counts a new bundle."""
        self._swaps.labels(model, "in_service" if in_service else "refused").inc()

    def watch_waiting(self, count: Callable[[], int]) -> None:
        """Reads from now on how many requests wait."""
        self._waiting.set_function(count)

    def text(self) -> bytes:
        """All of it in the text format of Prometheus."""
        return generate_latest(self._registry)
