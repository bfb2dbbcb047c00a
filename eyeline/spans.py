"""The token stream cut into what is attributed: sentences or lines of code, thinking and answer apart.

`Segmenter` follows one stream: text from `eyeline.detokenize`, stop strings and markers found in it, and
spans that tile the generated ids. `Ends` knows where spans end, from the text alone. Attribution is left to
others.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from eyeline.detokenize import Detokenizer
from eyeline.errors import EyelineError
from eyeline.events import Channel, Text

MAX_TOKENS = 128  # a span is cut at this length
MAX_LINES = 8  # a statement of code, with the comments above it, is cut at this many lines


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words before a full stop that may not end the sentence: it never does, it does not before a number, and it
# does only before a capitalised one of STARTERS (so it is for initials and "U.S." too).
TITLES = _words("e.g i.e cf vs viz approx resp ca dr mr mrs ms prof st mt gen rev capt lt sgt messrs")
NUMBERED = _words("fig figs eq eqs no nos sec secs tab ref refs p pp vol ch chap art ex")
FAMED = _words("inc ltd co corp al ph.d jr sr")
STARTERS = _words(
    "the this that these those it its in on at so but and or if when while then there here i we you he she"
    " they a an as for from to with what which why how let now next first second third finally therefore"
    " thus hence however also both each since because after before looking wait hmm okay ok yes no not is are"
    " does do step line object bar point entry option answer given note our my all only another"
)
BY = _words("by of and from to for with or author authors")  # lower-case words before a name

OPENERS, CLOSERS = "「『“‘（《【〈", "」』”’）》】〉"
TRAILING = CLOSERS + "。！？｡…"  # with whitespace: what belongs to an end where it stands in the same token
_CLOSING = re.compile(r"[\"')\]}»*_`" + CLOSERS + "]*")
_SPACE = re.compile(r"[^\S\n]*")
_EVENT = re.compile(r"\\(?:begin\{[^}\n]*\}|[^\n]|\Z)|\$\$?|[.!?…]+|[。！？｡]|\n")
_IN_INLINE = re.compile(r"\\(?:[^\n]|\Z)|\$|[.!?…]+|\n")
_IN_DISPLAY = re.compile(r"\\(?:end\{[^}\n]*\}|[^\n])|\$\$|\n[^\S\n]*\n")
_UNFINISHED = re.compile(r"(?:\\(?:[a-z]{0,5}|(?:begin|end)\{[^}\n]*)|\$|\n[^\S\n]*)\Z")
_MATH_CLOSE = {"$$": "$$", r"\(": r"\)", r"\[": r"\]"}
_MONEY = re.compile(r"\$\d[\d,]*(?:\.\d+)?(?:[kKMB]?\Z|\s+[A-Za-z]{2})")
_ENUMERATOR = re.compile(r"[\s>#*+(\[-]*(?:\d{1,3}|[A-Za-z]|[ivxIVX]+)")
_WORD = re.compile(r"[\w.]*\Z")
_WORD_BEFORE = re.compile(r"(\w+)\W+\w\Z")
_NEXT_WORD = re.compile(r"[\w']+")
_ACRONYM = re.compile(r"(?:[A-Za-z]\.)+[A-Za-z]")
_FENCE = re.compile(r"\s*(?:```+|~~~+)\s*(\w*)")
_COMMENT = re.compile(r"\s*(?:#[\s#!]|//|<!--.*-->\s*\Z|@\w)")
_FENCE_LINE = re.compile(r"\s*(?:```|~~~).*\n")
_MARKUP = frozenset(["html", "xml", "svg", "md", "markdown", "latex", "tex", "text", "txt"])
_CODE = re.compile(
    r"\s*(?:</?[A-Za-z][^<>]*(?:>|\Z)|<!|import \w|from [\w.]+ import |(?:async )?def \w+\(|class \w+[(:]|@\w"
    r"|(?:print|\w+(?:\.\w+)+)\(|\w[\w., \[\]]* [-+*/]?= (?:[\[({\"']|\w+(?:\.\w+)*\())"
)  # the start of a line of code that no fence announces
_LITERAL = re.compile(r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|#.*|//.*")
_BRACKET = re.compile(r"((?<=[=(\[,:{])\s*\{|\breturn\s*\{|[(\[])|[)\]}{]")  # group 1: joins lines


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
        tokenizer: PreTrainedTokenizerBase,
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


class Ends:
    """Where spans end in the text of one channel, with as little text after the end as can settle it.

    Prose ends with a sentence or a line; code with a statement or a line, the comments and blank lines above
    it included; LaTeX is left whole, display LaTeX up to a blank line. The text given to `find` starts where
    the open span starts and only grows; `drop` takes a finished span off it.
    """

    def __init__(self, channel: Channel):
        self.read = 0  # everything before is settled
        self._answer = channel == "answer"
        self._found: int | None = None
        self._line_start = True  # the open span starts at the start of a line
        self._fence: str | None = None  # language of the fenced code around
        self._close: str | None = None  # what ends the LaTeX around
        self._opened = 0  # where it began

    def find(self, text: str, inside: int, final: bool) -> int | None:
        """Where the open span ends, None if it is not certain yet.

        Only the first `inside` characters can hold an end, the others are look-ahead. `final`: the text will
        not grow.
        """
        while self._found is None:
            if self._close == "$":
                certain = self._inline(text, inside, final)
            elif self._close:
                certain = self._display(text, inside, final)
            else:
                certain = self._plain(text, inside, final)
            if not certain:
                return None
        return self._found

    def skip(self) -> None:
        """Goes on after an end that is not wanted."""
        self._found = None

    def drop(self, span: str) -> None:
        """Goes on after a finished span."""
        length = len(span)
        self.read = max(0, self.read - length)
        self._opened -= length
        self._found = self._found - length if self._found and self._found > length else None
        self._line_start = span.rstrip(" \t").endswith("\n") or (self._line_start and not span)

    def _plain(self, text: str, inside: int, final: bool) -> bool:
        event = _EVENT.search(text, self.read)
        if event is None or event.start() >= inside:
            self.read = max(self.read, inside)
            return False
        self.read, end, sign = event.start(), event.end(), event.group()
        if sign == "\n":
            self._newline(text)
        elif self._fence is not None or self._is_code(text[: self.read]):
            self.read = end
        elif sign in "。！？｡":
            return self._full_stop(text, end)
        elif sign[0] in ".!?…":
            return self._settle(_sentence_end(text, self.read, end, final), end)
        elif _UNFINISHED.match(text, self.read):
            return False  # the beginning of a LaTeX delimiter, perhaps
        else:
            close = _MATH_CLOSE.get(sign)
            if sign == "$" and not (text[end].isspace() or text[end] in ".,;:!?)"):
                close = "$"
            elif sign.startswith(r"\begin{"):
                close = sign.replace("begin", "end", 1)
            self._close, self._opened, self.read = close, self.read, end
        return True

    def _inline(self, text: str, inside: int, final: bool) -> bool:
        event = _IN_INLINE.search(text, self.read)
        if event is None or event.start() >= inside:
            self.read = max(self.read, inside)
            return False
        self.read, end, sign = event.start(), event.end(), event.group()
        if sign == "\n" or (sign == "$" and text[self.read - 1 : self.read].isspace()):
            self._close = None  # what looked like an opening dollar was none
        elif end == len(text):
            return False
        elif sign[0] == "\\":
            self.read = end
        elif sign == "$":
            if text[end].isdigit():
                self.read = end
            else:
                return self._closed(text, self.read, end, final)
        elif not (text[end].isspace() or text[end] in "\"')") or not _MONEY.match(
            text[max(0, self._opened) : self.read]
        ):
            self.read = end
        else:
            self._close = None  # a price
        return True

    def _display(self, text: str, inside: int, final: bool) -> bool:
        event = _IN_DISPLAY.search(text, self.read)
        unfinished = _UNFINISHED.search(text, self.read)
        first = min((match.start() for match in (event, unfinished) if match), default=inside)
        if event is None or event.start() >= inside or (unfinished and unfinished.start() == first):
            self.read = max(self.read, min(first, inside))
            return False
        self.read, end, sign = event.start(), event.end(), event.group()
        if sign == self._close:
            return self._closed(text, self.read, end, final)
        self.read = end
        if sign[0] == "\n":
            self._close, self._found = None, end
        return True

    def _closed(self, text: str, inside: int, end: int, final: bool) -> bool:
        """LaTeX from `_opened` to `end`: a full stop before its closing delimiter may end the sentence."""
        formula = text[:inside].rstrip()
        if formula and formula[-1] in ".!?":
            return self._settle(_sentence_end(text, len(formula) - 1, end, final), end)
        return self._settle(0, end)

    def _settle(self, sentence_end: int | None, end: int) -> bool:
        if sentence_end is None:
            return False
        self._close = None
        self.read = sentence_end or end
        self._found = sentence_end or None
        return True

    def _full_stop(self, text: str, end: int) -> bool:
        """Ends a sentence at once, unless a quote or bracket is open and may close right after it."""
        quotes = sum(text.count(sign, 0, end) for sign in OPENERS)
        quotes -= sum(text.count(sign, 0, end) for sign in CLOSERS)
        while quotes > 0:
            if end == len(text):
                return False
            if text[end] not in CLOSERS:
                break
            quotes, end = quotes - 1, end + 1
        self.read = end
        self._found = end if any(map(str.isalnum, text[:end])) else None
        return True

    def _newline(self, text: str) -> None:
        """Ends a line, and with it a span, except after blank lines, comments and an open bracket in code."""
        start = text.rfind("\n", 0, self.read) + 1
        line, before = text[start : self.read], text[: self.read]
        self.read += 1
        fence = _FENCE.match(line) if start or self._line_start else None
        if fence and self._fence is None:
            self._fence = fence.group(1).lower()
        elif fence and not fence.group(1):
            self._fence, self._found = None, self.read
        elif not before.strip():
            return
        elif self._fence is not None or self._is_code(before):
            goes_on = not line.strip() or (self._fence is not None and _COMMENT.match(line))
            if self._fence not in _MARKUP:
                goes_on = goes_on or _is_open(_FENCE_LINE.sub("", before, count=1))
            if not goes_on or before.strip().count("\n") + 1 >= MAX_LINES:
                self._found = self.read
        else:
            self._found = self.read

    def _is_code(self, before: str) -> bool:
        return self._answer and self._line_start and _CODE.match(before) is not None


def _sentence_end(text: str, stop: int, after: int, final: bool) -> int | None:
    """Where the sentence ends whose full stops are at `text[stop:]`; 0: it goes on; None: not certain yet.

    `after`: where closing quotes and brackets may follow.
    """
    end = _CLOSING.match(text, after).end()  # pyright: ignore[reportOptionalMemberAccess]
    rest = _SPACE.match(text, end).end()  # pyright: ignore[reportOptionalMemberAccess]
    if rest == len(text):
        return None
    following = text[rest]
    if following == "\n":
        return 0  # the end of the line ends the span
    head = text[:stop]
    if rest == end or not any(map(str.isalnum, head)):
        return 0
    if following.islower() and head[-1].isalpha():
        return 0
    if text[stop:after] != ".":
        return end
    word = _WORD.search(head).group().strip(".")  # pyright: ignore[reportOptionalMemberAccess]
    if word.lower() in TITLES or _ENUMERATOR.fullmatch(head):
        return 0
    if word.lower() in NUMBERED:
        if word.lower() != "no" and following.isupper():  # "Fig. A", "Sec. II"
            second = text[rest + 1 : rest + 2]
            return (0 if not second.islower() else end) if second or final else None
        return 0 if following.isdigit() or following in "(#" else end
    initial = len(word) == 1 and word.isupper()
    if initial and (before := _WORD_BEFORE.search(head)) and before[1].islower() and before[1] not in BY:
        return end  # "at point B. Line 2": no name
    if initial or word.lower() in FAMED or (_ACRONYM.fullmatch(word) and not word.islower()):
        following_word = _NEXT_WORD.match(text, rest)
        if following_word and following_word.end() == len(text) and not final:
            return None
        return end if following_word and following_word.group().lower() in STARTERS else 0
    return end


def _is_open(code: str) -> bool:
    """Whether a bracket is open that joins lines; not in markup, and not the brace of a block."""
    if code.lstrip().startswith("<"):
        return False
    brackets: list[bool] = []
    for bracket in _BRACKET.finditer(_LITERAL.sub('""', code)):
        if bracket[0] not in ")]}":
            brackets.append(bracket[1] is not None)
        elif brackets:
            brackets.pop()
    return any(brackets)
