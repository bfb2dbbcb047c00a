"""Events as OpenAI's API shows them: chunks of a stream, or one completion."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eyeline.events import Done, Event, Text, from_json

# an answer that is not whole has no finish_reason
FINISH = {"eos": "stop", "stop": "stop", "length": "length"}


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is the same in all chunks of a completion."""

    id: str
    created: int
    model: str
    has_usage: bool = False  # each chunk has the field then, null but in the last

    def chunk(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
            **({"usage": None} if self.has_usage else {}),
            **more,
        }

    def event(self, event: Mapping[str, Any], **of_tokens: Any) -> dict[str, Any]:
        """The chunk of one event, in its JSON form; `of_tokens` are further fields of the choice."""
        delta: dict[str, Any] = {}
        if event["event"] == "start":
            delta = {"role": "assistant", "content": ""}
        elif event["event"] == "text":
            text = event["text"]
            thinking = event["channel"] == "thinking"
            delta = {"reasoning": text, "reasoning_content": text} if thinking else {"content": text}
        return self.chunk([{"index": 0, "delta": delta, "finish_reason": None, **of_tokens}], eyeline=event)

    def last(self, done: Done, **of_tokens: Any) -> dict[str, Any]:
        return self.chunk([{"index": 0, "delta": {}, "finish_reason": FINISH[done.reason], **of_tokens}])

    def usage(self, done: Done) -> dict[str, Any]:
        return self.chunk([], usage=count(done))

    def completion(self, lines: Sequence[str], **of_tokens: Any) -> dict[str, Any]:
        events: list[Event] = [from_json(line) for line in lines]
        done = events[-1]
        assert isinstance(done, Done), "always last"
        texts: dict[str, str] = {
            channel: "".join(
                event.text for event in events if isinstance(event, Text) and event.channel == channel
            )
            for channel in ("thinking", "answer")
        }
        message = {
            "role": "assistant",
            "content": texts["answer"],
            "reasoning": texts["thinking"],
            "reasoning_content": texts["thinking"],
            "refusal": None,
            "eyeline": [
                json.loads(line)
                for line, event in zip(lines, events, strict=True)
                if not isinstance(event, Text)
            ],
        }
        choice = {"index": 0, "message": message, "finish_reason": FINISH[done.reason]}
        return {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [{**choice, **of_tokens}],
            "usage": count(done),
        }


def count(done: Done) -> dict[str, int]:
    total = done.prompt_tokens + done.tokens
    return {"prompt_tokens": done.prompt_tokens, "completion_tokens": done.tokens, "total_tokens": total}


def sse(data: dict[str, Any]) -> bytes:
    """One `data:` line. ASCII, so that nothing in a text can end it."""
    return b"data: " + json.dumps(data, separators=(",", ":"), allow_nan=False).encode() + b"\n\n"


def comment(text: str = "") -> bytes:
    return f": {text}\n\n".encode()
