"""What a server tells of its tokens -> ids of our vocabulary: exactly, by their bytes, or by their text alone."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from eyeline.events import Notice
from eyeline.model import Model
from eyeline.vocabulary import Vocabulary

SAID = {
    "ids": "Token ids are the server's own.",
    "bytes": "Token ids are read from each token's bytes, and compared with the server's own where it tells them at the end.",
    "text": "The server tells no token ids: its text is tokenized again, so ids and the ends of spans may differ from what it "
    "wrote, and what its parser took out of the text is missing.",
}
# a word begins with its space: no token of a byte-level vocabulary reaches over this place
BOUNDARY = re.compile(r"(?<=\S)(?= [^\W\d_])")


def notice(tier: str) -> Notice:
    return Notice(f"ids-{tier}", SAID[tier])


@dataclass(frozen=True, slots=True)
class Tokens:
    """Some ids in a row, and their log-probs where the server tells them."""

    ids: list[int]
    log_probs: list[float | None] | None


class Tier(Protocol):
    """Reads the parts of one answer (`servers.Account.read`)."""

    def read(self, part: Mapping[str, Any]) -> Tokens:
        """The ids that a part settles."""
        ...

    def finish(self) -> Tokens:
        """What was held back."""
        ...


class ByIds:
    def read(self, part: Mapping[str, Any]) -> Tokens:
        return Tokens(list(part["ids"]), part.get("log_probs"))

    def finish(self) -> Tokens:
        return Tokens([], None)


class ByBytes:
    """Bytes that no token has are tokenized as text."""

    def __init__(self, model: Model, vocabulary: Vocabulary) -> None:
        self._model, self._vocabulary = model, vocabulary

    def read(self, part: Mapping[str, Any]) -> Tokens:
        ids: list[int] = []
        log_probs: list[float | None] = []
        for each, log_prob in zip(part["bytes"], part["log_probs"], strict=True):
            content = bytes(each)
            known = self._vocabulary.id_of(content)
            if known is not None:
                ids.append(known)
                log_probs.append(log_prob)
            elif content:
                found = tokenized(self._model, content.decode("utf-8", "replace"))
                ids += found
                log_probs += [None] * len(found)
        return Tokens(ids, log_probs)

    def finish(self) -> Tokens:
        return Tokens([], None)


class ByText:
    """Text up to the last place that no token reaches over; between thinking and answer the marker that a parser took out."""

    def __init__(self, model: Model, opened: bool) -> None:
        self._model = model
        self._opens, self._closes = model.adapter.thinking_markers
        self._held = ""
        self._opened = opened  # whether the prompt, or what was read, opens thinking
        self._thinks = False

    def read(self, part: Mapping[str, Any]) -> Tokens:
        if part["thinking"]:
            self._held += part["thinking"] if self._opened else self._opens + part["thinking"]
            self._opened = self._thinks = True
        if part["text"]:
            self._held += self._closes + part["text"] if self._thinks else part["text"]
            self._thinks = False
        borders = [found.start() for found in BOUNDARY.finditer(self._held)]
        if not borders:
            return Tokens([], None)
        known, self._held = self._held[: borders[-1]], self._held[borders[-1] :]
        return Tokens(tokenized(self._model, known), None)

    def finish(self) -> Tokens:
        known, self._held = self._held, ""
        return Tokens(tokenized(self._model, known), None)


def tokenized(model: Model, text: str) -> list[int]:
    return model.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []


# by name: of a model, its vocabulary, and whether the prompt opens thinking
TIERS: dict[str, Callable[[Model, Vocabulary, bool], Tier]] = {
    "ids": lambda model, vocabulary, opened: ByIds(),
    "bytes": lambda model, vocabulary, opened: ByBytes(model, vocabulary),
    "text": lambda model, vocabulary, opened: ByText(model, opened),
}


def difference(read: Sequence[int], exact: Sequence[int]) -> str | None:
    """A sentence where the ids that were read are not those that the server tells at the end."""
    pairs = enumerate(zip(read, exact, strict=False))
    at = next((place for place, (one, other) in pairs if one != other), min(len(read), len(exact)))
    if at == len(read) == len(exact):
        return None
    return (
        f"The ids that were read are not the server's own from token {at} on ({len(read)} were read, it wrote {len(exact)}): "
        "the numbers of spans from there on are of other tokens; ask again with `eyeline attribute` and its text for exact ones."
    )
