"""What `/metrics` counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from eyeline.events import Done, Event, SpanAttribution

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
        self.streams = Gauge("eyeline_open_streams", "Responses that are being streamed", registry=registry)

    def count(self, event: Event) -> None:
        if isinstance(event, SpanAttribution):
            self.latency.observe(event.latency_s)
        elif isinstance(event, Done):
            self.tokens.inc(event.tokens)
            self.speed.set(event.tokens_per_s)
            self.stalled.inc(event.stalled_s)

    def render(self) -> bytes:
        return generate_latest(self.registry)
