"""What `/metrics` counts, for Prometheus."""

import math
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from eyeline.events import Done, Event, SpanAttribution

AUDIT = {
    "spans": "Spans that were measured",
    "lds": "LDS of the last spans that were measured", "lds_low": "Low end of its 95 % interval", "lds_high": "High end of it",
    "r2": "R2 of the same", "r2_low": "Low end of its 95 % interval", "r2_high": "High end of it",
    "drift": "1 where the estimator does not predict the model any more",
}  # fmt: skip
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Counters:
    """One set of counters for each server, so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "eyeline_requests", "HTTP requests answered", ["route", "status"], registry=registry
        )
        self.tokens = Counter("eyeline_tokens", "Tokens generated", registry=registry)
        self.speed = Gauge("eyeline_tokens_per_second", "Of the last generation", registry=registry)
        self.queue = Gauge("eyeline_queue_length", "Questions that wait for their turn", registry=registry)
        self.latency = Histogram(
            "eyeline_attribution_latency_seconds",
            "From the last token of a span to its attribution",
            buckets=SECONDS,
            registry=registry,
        )
        self.stalled = Counter(
            "eyeline_stalled_seconds", "Seconds that decoding waited for attribution", registry=registry
        )
        self.restarts = Counter(
            "eyeline_model_restarts", "Times that the model's process was started again", registry=registry
        )
        self.audit_seconds = Counter(
            "eyeline_audit_seconds", "Seconds of the model's time that audits have taken", registry=registry
        )
        self._audit = {
            name: Gauge(f"eyeline_audit_{name}", what, registry=registry) for name, what in AUDIT.items()
        }
        self.streams = Gauge("eyeline_open_streams", "Responses that are being streamed", registry=registry)

    def count(self, event: Event) -> None:
        if isinstance(event, SpanAttribution):
            self.latency.observe(event.latency_s)
        elif isinstance(event, Done):
            self.tokens.inc(event.tokens)
            self.speed.set(event.tokens_per_s)
            self.stalled.inc(event.stalled_s)

    def audit(self, told: Mapping[str, Any]) -> None:
        """The running numbers of an audit (`audit.Record.told`)."""
        numbers: dict[str, float | None] = {"spans": told["measured"], "drift": float(told["drifted"])}
        for name in ("lds", "r2"):
            ends = (f"{name}", f"{name}_low", f"{name}_high")
            numbers |= zip(ends, told[name] or (None,) * 3, strict=True)
        for name, value in numbers.items():
            self._audit[name].set(math.nan if value is None else value)

    def render(self) -> bytes:
        return generate_latest(self.registry)
