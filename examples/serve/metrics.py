"""What ``GET /metrics`` shows, in Prometheus' text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
SHARES = tuple(tenth / 10 for tenth in range(1, 11))


class Metrics:
    """Of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        name, where = "switchdec_", {"registry": self.registry}
        self.requests = Counter(f"{name}requests", "Requests answered, by HTTP status.", ["status"], **where)
        self.seconds = Histogram(f"{name}request_seconds", "Seconds to answer a request.", buckets=SECONDS, **where)
        self.texts = Counter(f"{name}texts", "Texts answered.", **where)
        self.batch = Histogram(f"{name}batch_size", "Texts in the batch of each text.", buckets=SIZES, **where)
        self.cost = Histogram(f"{name}cost", "Each text's share of the keep-all FLOPs.", buckets=SHARES, **where)
        self.queue = Gauge(f"{name}queue", "Texts that wait or run.", **where)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self.registry)
