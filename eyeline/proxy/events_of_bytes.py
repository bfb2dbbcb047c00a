"""A stream of server-sent events as bytes -> its events, each verbatim, whatever pieces the bytes come in."""

import re

BORDER = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")  # an empty line
LINE = re.compile(rb"\r\n|\n|\r")


class Splitter:
    """Joined, the events and `rest` are the bytes that came."""

    def __init__(self) -> None:
        self.rest = b""  # of an event that is not whole

    def feed(self, part: bytes) -> list[bytes]:
        """The events that this part completes, with the empty line that ends them."""
        self.rest += part
        events, start = [], 0
        for border in BORDER.finditer(self.rest):
            events.append(self.rest[start : border.end()])
            start = border.end()
        self.rest = self.rest[start:]
        return events


def data_of(event: bytes) -> bytes | None:
    """What the `data:` lines hold, joined; None where there is none: a comment, an id or a pause alone."""
    found = [
        line.removeprefix(b"data:").removeprefix(b" ")
        for line in LINE.split(event)
        if line.startswith(b"data:")
    ]
    return b"\n".join(found) if found else None


def with_data(event: bytes, before: bytes, after: bytes) -> bytes:
    """The event with other data on its one `data:` line, every other byte the same."""
    return event.replace(before, after, 1) if before in event else event
