"""The token stream cut into what is attributed: sentences or lines of code, thinking and answer apart.

`Segmenter` follows one stream: text from `eyeline.detokenize`, stop strings and markers found in it, and
spans that tile the generated ids. Where spans end is found in ends.py, from the text alone. Attribution is
left to others.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

from eyeline.detokenize import Detokenizer
from eyeline.ends import Ends
from eyeline.errors import EyelineError
from eyeline.events import Channel, Text
from eyeline.sentences import CLOSERS, STOPS

MAX_TOKENS = 128  # a span is cut at this length
TRAILING = CLOSERS + STOPS  # with whitespace: what belongs to an end where it stands in the same token


@dataclass(frozen=True, slots=True)
class Span:
    """A finished stretch of one channel.

    `text` is exact: the texts of a channel's spans, joined, are the channel's text. Left out are only
    stretches before a change of channel or the end that are blank or have no token of their own.
    """

    index: int
    channel: Channel
    start: int  # token positions in the generated ids, [start, end), never empty
    end: int
    text: str
    cut: bool  # closed at the longest allowed length, not at an end found in the text


class Segmenter:
    """Text pieces and finished spans of one stream of generated ids.

    - Text is out as soon as it cannot be part of a character, marker or stop string any more; a span as soon
      as its end is certain. Pieces joined equal `decode(ids, skip_special_tokens=True,
      clean_up_tokenization_spaces=False)` without markers, up to the first stop string that is completed.
    - Spans tile [0, T). A token belongs to the span of its first character; tokens without text, markers
      among them, to the span after them, and at the very end to the last span that is still open. The line
      break that ends a span belongs to it, other whitespace to the next span unless it shares the ending
      token.
    - A blank stretch is no span, except where only spans that are already out could hold its tokens.

    `opened`: the prompt ends inside thinking. A marker that is a special token of the tokenizer counts too.
    Raises `EyelineError` for an empty stop string.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        opened: bool,
        think: tuple[str, str] | None = ("<think>", "</think>"),
        answer_markers: tuple[str, ...] = (),
        stop: tuple[str, ...] = (),
        max_tokens: int = MAX_TOKENS,
    ):
        if not all(stop):
            raise EyelineError(
                "A stop string is empty. Expected text at which generation ends; leave the empty one out."
            )
        self.stopped = False  # a stop string was completed: end generation, then `finish`
        self._detokenizer = Detokenizer(tokenizer)
        switches: dict[str, Channel | None] = dict.fromkeys(answer_markers)
        if think is not None:
            switches |= {think[0]: "thinking", think[1]: "answer"}
        self._signs: dict[int, str] = {}  # special token -> a character that no decoded text contains
        stops = list(stop)
        for token_id in self._detokenizer.special_ids:
            name = tokenizer.decode([token_id], skip_special_tokens=False)
            if name in stop or name in switches:
                sign = self._signs[token_id] = chr(0xD800 + len(self._signs))
                if name in stop:
                    stops.append(sign)
                else:
                    switches[sign] = switches[name]
        assert all(switches)
        assert max_tokens > 0
        self._switches = switches
        self._stops, self._markers = Literals(stops), Literals(list(switches))
        self._raw, self._raw_ends = "", list[int]()  # text that may be the beginning of a stop string
        self._read, self._read_ends = "", list[int]()  # text that may be the beginning of a marker
        self._channel: Channel = "thinking" if opened else "answer"
        self._answer: list[str] = []
        self._count = 0  # ids taken
        self._text_end = 0  # where the next piece of text starts
        self._max_tokens = max_tokens
        self._index = 0
        self._start = 0  # where the open span starts
        self._text = ""  # of the open span
        self._ends: list[int] = []  # for each of its characters, the position after its last token
        self._rule = Ends(self._channel)

    @property
    def channel(self) -> Channel:
        """That of what comes next: a marker has changed it with its last token."""
        return self._channel

    @property
    def answer(self) -> str:
        """The text of the answer so far, without white space at its ends."""
        return "".join(self._answer).strip()

    def push(self, token_id: int) -> list[Text | Span]:
        """Takes the next id; returns the text and spans it settles. After a stop, ids are only counted."""
        self._count += 1
        if self.stopped:
            return []
        pieces = self._detokenizer.push(token_id)
        if token_id in self._signs:
            pieces.append((self._signs[token_id], self._count))
        return self._take(pieces)

    def finish(self) -> list[Text | Span]:
        """Returns what was held back; the last span ends at the last id."""
        events = [] if self.stopped else self._take(self._detokenizer.finish(), final=True)
        return events + self._close(self._count, last=True)

    def _take(self, pieces: list[tuple[str, int]], final: bool = False) -> list[Text | Span]:
        for text, end in pieces:
            self._raw += text
            self._raw_ends += [end] * len(text)
        if not (self._raw or final):
            return []
        found = self._stops.first(self._raw)
        if found:
            self.stopped = final = True
            self._raw, self._raw_ends = self._raw[: found[0]], self._raw_ends[: found[0]]
        known = len(self._raw) - (0 if final else self._stops.begun(self._raw))
        self._read += self._raw[:known]
        self._read_ends += self._raw_ends[:known]
        self._raw, self._raw_ends = self._raw[known:], self._raw_ends[known:]
        return self._channels(final)

    def _channels(self, final: bool) -> list[Text | Span]:
        events: list[Text | Span] = []
        while found := self._markers.first(self._read):
            start, end = found
            events += self._say(start)
            channel = self._switches[self._read[: end - start]]
            self._read, self._read_ends = self._read[end - start :], self._read_ends[end - start :]
            if channel and channel != self._channel:
                events += self._close(self._text_end, last=False)
                self._channel, self._rule = channel, Ends(channel)
        events += self._say(len(self._read) - (0 if final else self._markers.begun(self._read)))
        held = self._read_ends or self._raw_ends  # both empty where `final`
        return events + self._spans(held[0] if held else None)

    def _say(self, known: int) -> list[Text | Span]:
        """Moves that many characters from what is read to the open span."""
        if not known:
            return []
        text, ends = self._read[:known], self._read_ends[:known]
        self._read, self._read_ends = self._read[known:], self._read_ends[known:]
        self._text += text
        self._ends += ends
        if self._channel == "answer":
            self._answer.append(text)
        piece = Text(self._channel, text, self._text_end, ends[-1])
        self._text_end = ends[-1]
        return [piece]

    def _spans(self, held: int | None = None, final: bool = False) -> list[Text | Span]:
        """The spans whose end is certain. `held`: position after the first held-back character."""
        spans: list[Text | Span] = []
        while True:
            limit = self._start + self._max_tokens
            inside = bisect_right(self._ends, limit)  # characters that the span may hold
            end = self._rule.find(self._text, inside, final)
            if end is not None:
                end = self._with_trail(end)
                if end == len(self._text) and held == self._ends[end - 1]:
                    return spans  # more of this token is to come
                if self._ends[end - 1] <= self._start:  # no token of its own
                    self._rule.skip()
                    continue
            if end is not None and self._ends[end - 1] <= limit:
                spans.append(self._emit(end, self._ends[end - 1]))
            elif inside < len(self._text):
                if end is None and self._rule.read < inside and not final:
                    return spans  # an end within the limit is still open
                spans.append(self._cut(inside, limit))
            else:
                return spans

    def _with_trail(self, end: int) -> int:
        """The end moved over the whitespace and full stops that share its token."""
        while end < len(self._text) and self._ends[end] == self._ends[end - 1]:
            if not (self._text[end].isspace() or self._text[end] in TRAILING):
                break
            end += 1
        return end

    def _cut(self, inside: int, limit: int) -> Span:
        """Closes a span that is too long, before its last word; `inside`: characters that fit."""
        words = (match.start() for match in re.finditer(r"(?<=\S)\s", self._text[:inside]))
        end = max((word for word in words if self._ends[word - 1] > self._start), default=inside)
        position = self._ends[end - 1] if end else limit
        return self._emit(end, position if position > self._start else limit, cut=True)

    def _close(self, end: int, last: bool) -> list[Text | Span]:
        """The spans of a stretch that is complete; `end`: position after its tokens."""
        spans = self._spans(final=True)
        if not last and not self._text.strip():
            end = self._start  # blank: its tokens go to the next span
        while end - self._start > self._max_tokens:
            spans.append(self._emit(len(self._text), self._start + self._max_tokens, cut=True))
        if end > self._start:
            spans.append(self._emit(len(self._text), end))
        self._text, self._ends = "", []
        return spans

    def _emit(self, length: int, end: int, cut: bool = False) -> Span:
        span = Span(self._index, self._channel, self._start, end, self._text[:length], cut)
        self._rule.drop(self._text[:length])
        self._text, self._ends = self._text[length:], self._ends[length:]
        self._index += 1
        self._start = end
        return span


class Literals:
    """Finds literal strings in a text that grows."""

    def __init__(self, strings: list[str]):
        self._strings = strings
        self._beginnings = {string[:length] for string in strings for length in range(1, len(string))}
        self._longest = max(map(len, self._beginnings), default=0)

    def first(self, text: str) -> tuple[int, int] | None:
        """Where the string stands that is completed first, the longest if there are several."""
        found = [
            (start + len(string), start) for string in self._strings if (start := text.find(string)) >= 0
        ]
        if not found:
            return None
        end, start = min(found)
        return start, end

    def begun(self, text: str) -> int:
        """How many characters at the end of the text may be the beginning of a string."""
        for length in range(min(self._longest, len(text)), 0, -1):
            if text[-length:] in self._beginnings:
                return length
        return 0
