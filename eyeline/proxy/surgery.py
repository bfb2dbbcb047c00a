"""Single fields of a JSON object taken out or put in, every other byte left as it is."""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

SPACE = re.compile(r"[ \t\r\n]*")
_value = json.JSONDecoder().raw_decode  # a value, and where it ends


@dataclass(frozen=True, slots=True)
class Member:
    """Of an object in a text: where its name begins, and its value begins and ends."""

    name: str
    start: int
    value: int
    end: int


def take_out(
    text: str, fields: Collection[str], of_choices: Collection[str], null: Collection[str] = ()
) -> str:
    """Without some fields of the object, and of each of its `choices`; those in `null` stay and hold that.

    `text` is a JSON object.
    """
    cuts = []
    for member in _members(text, _skip(text, 0)):
        if member.name in fields:
            cuts.append(member)
        elif member.name == "choices" and text[member.value] == "[":
            for choice in _items(text, member.value):
                if text[choice] == "{":
                    cuts += [each for each in _members(text, choice) if each.name in of_choices]
    for member in sorted(cuts, key=lambda each: -each.start):
        text = _without(text, member, null=member.name in null)
    return text


def put_in(text: str, name: str, value: str) -> str:
    """With a field of the first choice's `message`, in place of one of its name or at the end; the same where there is none."""
    for member in _members(text, _skip(text, 0)):
        if member.name == "choices" and text[member.value] == "[":
            for choice in _items(text, member.value):
                for inner in _members(text, choice):
                    if inner.name == "message" and text[inner.value] == "{":
                        return _with(text, inner, name, value)
                break
    return text


def _with(text: str, where: Member, name: str, value: str) -> str:
    fields = {member.name: member for member in _members(text, where.value)}
    if name in fields:
        return f"{text[: fields[name].value]}{value}{text[fields[name].end :]}"
    end, comma = where.end - 1, "," if fields else ""
    return f"{text[:end]}{comma}{json.dumps(name)}:{value}{text[end:]}"


def _without(text: str, member: Member, *, null: bool) -> str:
    if null:
        return f"{text[: member.value]}null{text[member.end :]}"
    before = text[: member.start].rstrip(" \t\r\n")
    if before.endswith(","):
        return before[:-1] + text[member.end :]
    after = _skip(text, member.end)  # the first: the comma behind it goes
    return text[: member.start] + text[_skip(text, after + 1) if text[after] == "," else after :]


def _skip(text: str, at: int) -> int:
    found = SPACE.match(text, at)
    assert found is not None, "it matches nothing, too"
    return found.end()


def _members(text: str, at: int) -> Iterator[Member]:
    """Of the object that begins there."""
    at = _skip(text, at + 1)
    while text[at] != "}":
        start = at
        name, at = _value(text, at)
        value = _skip(text, _skip(text, at) + 1)  # behind the colon
        _, end = _value(text, value)
        yield Member(name, start, value, end)
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _items(text: str, at: int) -> Iterator[int]:
    """Where the values of the array begin that begins there."""
    at = _skip(text, at + 1)
    while text[at] != "]":
        yield at
        _, end = _value(text, at)
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
