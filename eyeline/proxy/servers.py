"""What each server can be asked about its tokens, and how what it says of them is found and taken out again.

Docs: docs/follow.md has the table.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from eyeline.proxy.surgery import take_out

IDS = {"return_token_ids": True}
LOG_PROBS = {"logprobs": True}
SGLANG_IDS = {"return_input_ids_in_sglext": True, "return_output_ids_in_sglext": True}


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of server."""

    name: str
    asks: Mapping[str, Any]  # fields that make it tell of tokens
    null: frozenset[str] = frozenset()  # fields that it sends, holding null, where they are not asked for
    fills_in: bool = False  # whether it sends chunks that are empty but for ids

    def additions(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Of these fields those that a request does not have already."""
        return {name: value for name, value in self.asks.items() if not body.get(name)}


KINDS = {
    "vllm": Kind(
        "vLLM",
        {**IDS, **LOG_PROBS},
        frozenset({"prompt_token_ids", "token_ids", "logprobs"}),
        fills_in=True,
    ),
    "sglang": Kind("SGLang", {**LOG_PROBS, **SGLANG_IDS}, frozenset({"logprobs"})),
    "llamacpp": Kind("llama.cpp", {**LOG_PROBS, "top_logprobs": 1}),
    "library": Kind("Ollama", LOG_PROBS),
    "eyeline": Kind("Eyeline", {**IDS, **LOG_PROBS}, frozenset({"logprobs"})),
}
OTHER = Kind("the server", {**IDS, **LOG_PROBS})


def kind_of(owner: str) -> Kind:
    """By the `owned_by` of its models."""
    return KINDS.get(owner, OTHER)


@dataclass(frozen=True, slots=True)
class Restorer:
    """Makes of what a server sends what it would have sent without our additions."""

    kind: Kind
    added: frozenset[str]
    shows: bool = False  # whether our events are put in: then those of a server that is one of ours make way

    @property
    def fields(self) -> set[str]:
        found = {"prompt_token_ids"} if "return_token_ids" in self.added else set()
        return found | ({"eyeline"} if self.shows and self.kind.name == "Eyeline" else set())

    @property
    def of_choices(self) -> set[str]:
        found = {"token_ids"} if "return_token_ids" in self.added else set()
        return found | ({"logprobs"} if "logprobs" in self.added else set())

    @property
    def _takes_sglext(self) -> bool:
        return set(SGLANG_IDS) <= self.added

    def restore(self, text: str, chunk: Mapping[str, Any]) -> str | None:
        """The text of a chunk or completion, which holds `chunk`; None for a chunk that would not have come."""
        choices = chunk.get("choices")
        if self._takes_sglext and "sglext" in chunk:
            if not choices and not chunk.get("usage"):
                return None
            text = take_out(text, {"sglext"}, ())
        if (
            self.kind.fills_in
            and "return_token_ids" in self.added
            and choices
            and all(map(_is_empty, choices))
        ):
            return None
        fields, of_choices = self.fields, self.of_choices
        there = any(name in chunk for name in fields) or any(
            name in choice for choice in choices or () if isinstance(choice, dict) for name in of_choices
        )
        return take_out(text, fields, of_choices, self.kind.null) if there else text


def _is_empty(choice: Any) -> bool:
    return isinstance(choice, dict) and choice.get("delta") == {} and choice.get("finish_reason") is None


@dataclass(eq=False)
class Account:
    """What a server has told of one answer's tokens so far, chunk by chunk.

    `tier` is how ids are known, once that can be said: `ids`, `bytes` or `text`. Until then parts are kept.
    """

    tier: str | None = None
    prompt_ids: list[int] | None = None
    exact: list[int] | None = None  # all generated ids, told at the end
    finish: str | None = None
    error: str | None = None  # what an error chunk says
    sent: Mapping[str, Any] = field(default_factory=dict)  # `id`, `created`, `model` of the first chunk
    told: int = 0  # ids told live
    expected: int | None = None  # by `usage`

    def read(self, chunk: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The parts of the trace that a chunk, or a completion, holds; each with `ids`, `bytes` or `text`."""
        if not self.sent:
            self.sent = {name: chunk[name] for name in ("id", "created", "model") if name in chunk}
        if isinstance(chunk.get("error"), dict):
            self.error = str(chunk["error"].get("message", ""))
        if _are_ids(chunk.get("prompt_token_ids")):
            self.prompt_ids = chunk["prompt_token_ids"]
            self.tier = self.tier or "ids"
        if isinstance(more := chunk.get("sglext"), dict):
            self._read_sglext(more)
        if isinstance(usage := chunk.get("usage"), dict) and isinstance(usage.get("completion_tokens"), int):
            self.expected = usage["completion_tokens"]
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        self.finish = choice.get("finish_reason") or self.finish
        part = self._part(choice)
        return [part] if part else []

    def _read_sglext(self, more: Mapping[str, Any]) -> None:
        for name, of in (("input_ids", "prompt_ids"), ("output_ids", "exact")):
            found = more.get(name)
            if isinstance(found, list) and found and isinstance(found[0], list):  # one list for each choice
                found = found[0]
            if _are_ids(found):
                setattr(self, of, found)

    def _part(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        said = choice.get("delta") or choice.get("message") or {}
        thinking = _text(said, "reasoning") or _text(said, "reasoning_content")
        text = _text(said, "content")
        entries = (choice.get("logprobs") or {}).get("content") or []
        ids = choice.get("token_ids")
        if self.tier is None:
            self.tier = _tier(ids, entries, bool(thinking or text))
        log_probs = [each.get("logprob") for each in entries]
        if self.tier == "ids":
            ids = ids if _are_ids(ids) else [each["id"] for each in entries if "id" in each]
            self.told += len(ids)
            return {"ids": ids, "log_probs": log_probs if len(log_probs) == len(ids) else None} if ids else {}
        if self.tier == "bytes":
            self.told += len(entries)
            return {"bytes": [each["bytes"] for each in entries], "log_probs": log_probs} if entries else {}
        return {"thinking": thinking, "text": text} if thinking or text else {}


def _tier(ids: Any, entries: Any, has_text: bool) -> str | None:
    if _are_ids(ids) and ids:
        return "ids"
    if entries and all(isinstance(each.get("id"), int) for each in entries):
        return "ids"
    if entries and all(isinstance(each.get("bytes"), list) for each in entries):
        return "bytes"
    return "text" if has_text else None


def _are_ids(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(each) is int for each in value)


def _text(said: Mapping[str, Any], name: str) -> str:
    found = said.get(name)
    return found if isinstance(found, str) else ""


def parsed(data: bytes | None) -> dict[str, Any] | None:
    """The JSON object of an event's data; None for anything else, `[DONE]` too."""
    if not data or not data.lstrip().startswith(b"{"):
        return None
    try:
        found = json.loads(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
