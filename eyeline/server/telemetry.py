"""A span of OpenTelemetry for each answer, by its conventions for generative models; nothing where its API is not installed.

Where spans go is told to OpenTelemetry's SDK (`opentelemetry-instrument eyeline serve`), never to us. No question, no answer
and no image is in them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from eyeline.events import Done
from eyeline.version import __version__

try:
    from opentelemetry import trace
except ImportError:
    trace = None

OPTIONS = {  # of a question, and what the conventions call them
    "max_new_tokens": "max_tokens", "temperature": "temperature", "top_p": "top_p", "seed": "seed", "stop": "stop_sequences",
}  # fmt: skip
EVALUATION = "gen_ai.evaluation.result"


class Telling:
    """The span of one answer, from when it is let in; below the span of its request, where there is one."""

    def __init__(self, model: str, run: str, options: Mapping[str, Any]) -> None:
        self.span: Any = None
        if trace is None:
            return
        about = {
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "eyeline", "gen_ai.request.model": model,
            "gen_ai.response.model": model, "gen_ai.response.id": run,
        }  # fmt: skip
        about |= {
            f"gen_ai.request.{name}": options[key]
            for key, name in OPTIONS.items()
            if options.get(key) not in (None, [])
        }
        tracer = trace.get_tracer("eyeline", __version__)
        self.run, self.span = run, tracer.start_span(f"chat {model}", attributes=about)

    @property
    def heard(self) -> bool:
        return self.span is not None and self.span.is_recording()

    def end(self, done: Done | None, reliances: Sequence[float], problem: str) -> None:
        """`reliances` are its spans'; `problem` is what kind of error it ended with, or nothing."""
        if done is not None:
            self.span.set_attributes({
                "gen_ai.response.finish_reasons": ("stop" if done.reason == "eos" else done.reason,),
                "gen_ai.usage.input_tokens": done.prompt_tokens, "gen_ai.usage.output_tokens": done.tokens,
            })  # fmt: skip
            if reliances:
                mean = sum(reliances) / len(reliances)
                self._evaluate("visual_reliance", mean, "nats a span loses without the image, mean")
            if done.rests_on is not None:
                what = "chance of another answer, had the image been hidden from the start"
                self._evaluate("visual_reliance.answer", done.rests_on.whole, what)
        if problem:
            self.span.set_attribute("error.type", problem)
            self.span.set_status(trace.Status(trace.StatusCode.ERROR))  # pyright: ignore[reportOptionalMemberAccess]
        self.span.end()

    def _evaluate(self, name: str, value: float, explanation: str) -> None:
        about = {
            "gen_ai.evaluation.name": name, "gen_ai.evaluation.score.value": value,
            "gen_ai.evaluation.explanation": explanation, "gen_ai.response.id": self.run,
        }  # fmt: skip
        self.span.add_event(EVALUATION, about)
