"""What is counted. One registry for each kernel, so that two kernels in one process do not mix."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 1, 5, 20, 60, 300)


Kind = TypeVar("Kind", Counter, Histogram)


class Labelled(Generic[Kind]):
    """A metric of several series. A series is looked up once: each call counts into ten of them."""

    def __init__(self, metric: Kind) -> None:
        self.labels: Callable[..., Kind] = cache(metric.labels)


class Metrics:
    """The counters and histograms of one kernel. Names follow the Prometheus conventions: unit last."""

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        self.syscalls = Labelled(Counter("aos_syscalls", "Syscalls by outcome", ("call", "outcome"), registry=own))
        self.syscall_seconds = Labelled(
            Histogram("aos_syscall_seconds", "Time in the gate", ("call",), buckets=SECONDS, registry=own)
        )
        self.model_calls = Labelled(
            Counter("aos_model_calls", "Model calls by outcome", ("model", "outcome"), registry=own)
        )
        self.model_seconds = Labelled(
            Histogram("aos_model_seconds", "Time of model calls", ("model",), buckets=SECONDS, registry=own)
        )
        self.tokens = Labelled(Counter("aos_tokens", "Tokens by kind", ("model", "kind"), registry=own))
        self.spent_usd = Labelled(Counter("aos_spent_usd", "Money spent", ("model",), registry=own))
        self.wait_seconds = Histogram(
            "aos_ready_wait_seconds", "Time from ready to running", ("class", "policy"), buckets=SECONDS, registry=own
        )
        self.run_seconds = Histogram(
            "aos_turn_seconds",
            "Time from running to the end of the turn",
            ("class", "policy"),
            buckets=SECONDS,
            registry=own,
        )
        self.preemptions = Labelled(
            Counter("aos_preemptions", "Generations that gave their place away", ("model", "text"), registry=own)
        )
        self.lane_window = Gauge("aos_lane_window", "Calls a lane gets at once", ("lane",), registry=own)
        self.lane_in_flight = Gauge("aos_lane_in_flight", "Calls on the wire", ("lane",), registry=own)
        self.lane_waiting = Gauge("aos_lane_waiting", "Calls that wait for a place", ("lane",), registry=own)
        self.lane_blocked = Gauge("aos_lane_blocked_seconds", "Until anything goes at all", ("lane",), registry=own)
        self.lane_breaker = Gauge("aos_lane_breaker", "1 while a provider is left alone", ("lane",), registry=own)
        self.lane_limit = Gauge("aos_lane_limit", "Units a minute, as known", ("lane", "kind"), registry=own)
        self.page_faults = Counter("aos_page_faults", "Pages asked for after they left", registry=own)
        self.compactions = Counter("aos_compactions", "Batches of pages that left", registry=own)
        self.summaries = Labelled(Counter("aos_summaries", "Summaries of what left", ("outcome",), registry=own))
        self.embedded_pages = Counter("aos_embedded_pages", "Pages that were given vectors", registry=own)
        self.embed_failures = Counter("aos_embed_failures", "Calls of the embedder that failed", registry=own)
        self.processes = Gauge("aos_processes", "Processes by state", ("state",), registry=own)

    def text(self) -> str:
        """Return all metrics in the Prometheus text form."""
        return generate_latest(self.registry).decode()
