"""Which tokens some words are: a span, words, a range of characters or a JSON field of the answer.

Tokens are told apart as far as the text events are: a word's tokens are those of all pieces of text that it touches.
"""

import json
import re
from collections.abc import Iterable, Sequence
from json.decoder import scanstring  # pyright: ignore[reportAttributeAccessIssue]
from typing import Any

from eyeline.errors import DataError
from eyeline.events import Event, SpanAttribution, Text

Target = (
    int | str | tuple[int, int]
)  # a span's index; words, or a JSON path that begins with $; characters [start, end)
Ranges = list[tuple[int, int]]  # of token positions, [start, end)
STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[\"([^\"]+)\"\]")


def tokens_of(target: Target | Any, events: Iterable[Event]) -> Ranges:
    """The tokens of a target among the events of a stream. Raises `DataError` for one that is none.

    Characters count in all texts joined, thinking and answer; words must stand there once, or be given as characters.
    """
    events = list(events)
    texts = [event for event in events if isinstance(event, Text)]
    if isinstance(target, bool) or not isinstance(target, int | str | tuple | list):
        raise DataError(
            f"{target!r} is no target; expected a span's number, words, or two numbers of characters."
        )
    if isinstance(target, int):
        spans = {event.index: event for event in events if isinstance(event, SpanAttribution)}
        if target not in spans:
            raise DataError(
                f"There is no span {target}; expected one of 0 to {max(spans, default=-1)}, as far as there are."
            )
        return [(spans[target].start, spans[target].end)]
    text = "".join(event.text for event in texts)
    if isinstance(target, str):
        start, end = _field(target, texts) if target.startswith("$") else _words(target, text)
    else:
        if len(target) != 2 or not all(isinstance(at, int) for at in target):
            raise DataError(f"{target!r} is no range of characters; expected two whole numbers.")
        start, end = target
    if not 0 <= start < end <= len(text):
        raise DataError(
            f"The characters {start} to {end} are none of the text's {len(text)}; expected a range of these."
        )
    return _touched(start, end, texts)


def answer_ranges(events: Iterable[Event]) -> Ranges:
    """The tokens of the answer's spans among the events of a stream."""
    spans = [event for event in events if isinstance(event, SpanAttribution)]
    return [(span.start, span.end) for span in spans if span.channel == "answer"]


def _words(words: str, text: str) -> tuple[int, int]:
    count = text.count(words) if words else 0
    if count != 1:
        problem = "do not stand in the text" if not count else f"stand there {count} times"
        raise DataError(
            f"The words {words!r} {problem}; expected words that stand there once, or two numbers of characters, "
            "such as those of the first: "
            + (f"{text.index(words)} to {text.index(words) + len(words)}." if count else "0 to 10.")
        )
    start = text.index(words)
    return start, start + len(words)


def _touched(start: int, end: int, texts: Sequence[Text]) -> Ranges:
    """Tokens of all pieces of text that the characters [start, end) touch, ranges that meet joined."""
    found: Ranges = []
    at = 0
    for event in texts:
        here, at = at, at + len(event.text)
        if here < end and start < at and event.start < event.end:
            if found and found[-1][1] >= event.start:
                found[-1] = (found[-1][0], event.end)
            else:
                found.append((event.start, event.end))
    return found


def _field(path: str, texts: Sequence[Text]) -> tuple[int, int]:
    """Where the value of a field stands, in characters of all texts; of JSON in the answer, in a code fence or not."""
    before = sum(len(event.text) for event in texts if event.channel == "thinking")
    answer = "".join(event.text for event in texts if event.channel == "answer")
    steps: list[str | int] = [
        int(index) if index else name or quoted for name, index, quoted in STEP.findall(path)
    ]
    if "$" + "".join(each.group() for each in STEP.finditer(path)) != path or not steps:
        raise DataError(f"{path!r} is no path to a field; expected one such as $.total or $.rows[2].price.")
    found = re.search(r"[\[{]", answer)
    try:
        if found is None:
            raise ValueError("there is no JSON in the answer")
        start, end = _value(answer, found.start())
        for step in steps:
            start, end = _inside(answer, start, step)
    except (ValueError, IndexError, StopIteration) as error:
        raise DataError(
            f"The answer has no field {path!r} ({error}); expected one of the JSON that the model wrote as its answer."
        ) from error
    return before + start, before + end


def _value(text: str, at: int) -> tuple[int, int]:
    """Where the JSON value at or after a place begins and ends."""
    at = re.compile(r"\s*").match(text, at).end()  # pyright: ignore[reportOptionalMemberAccess]
    return at, json.JSONDecoder().raw_decode(text, at)[1]


def _inside(text: str, at: int, step: str | int) -> tuple[int, int]:
    """Where a member of the object or list that begins at `at` stands."""
    if text[at] != ("[" if isinstance(step, int) else "{"):
        raise ValueError(f"nothing has a member {step!r} there")
    number, place = 0, at + 1
    while text[(place := re.compile(r"[\s,]*").match(text, place).end())] not in "]}":  # pyright: ignore
        name: str | int = number
        if isinstance(step, str):
            name, place = scanstring(text, place + 1, True)
            place = text.index(":", place) + 1
        start, place = _value(text, place)
        if name == step:
            return start, place
        number += 1
    raise ValueError(f"no member {step!r}")
