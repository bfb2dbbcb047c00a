"""Where spans end, from the text alone: prose by sentences and lines, code by statements and lines, LaTeX left whole.

Sentences are sentences.py's. Fenced code is found as CommonMark says, with two liberties for models' habits: a fence in a
list item or quotation may be indented as far as it likes, and ends at its closing fence only.
"""

import re
from dataclasses import dataclass

from eyeline.events import Channel
from eyeline.sentences import after_closing, full_stop_end, sentence_end

MAX_LINES = 8  # a statement of code, with the comments above it, is cut at this many lines
_EVENT = re.compile(r"\\(?:begin\{[^}\n]*\}|[^\n]|\Z)|\$\$?|[.!?…]+|[。！？｡]|\n")
_IN_INLINE = re.compile(r"\\(?:[^\n]|\Z)|\$|[.!?…]+|\n")
_IN_DISPLAY = re.compile(r"\\(?:end\{[^}\n]*\}|[^\n])|\$\$|\n[^\S\n]*\n")
_UNFINISHED = re.compile(r"(?:\\(?:[a-z]{0,5}|(?:begin|end)\{[^}\n]*)|\$|\n[^\S\n]*)\Z")
_MATH_CLOSE = {"$$": "$$", r"\(": r"\)", r"\[": r"\]"}
_LATEX = re.compile(r"\\[A-Za-z,;!]|(?<=[\w)}\]])[\^_][\w{\\]")  # what no price holds
_CONTAINER = (
    r"(?:[ \t]*(?:[-*+]|\d{1,9}[.)])(?=[ \t])|[ \t]*>)*[ \t]*"  # a list item or quotation, or several
)
_FENCE = re.compile(_CONTAINER + r"(`{3,}(?!.*`)|~{3,})[ \t]*(\w*)")
_CLOSING_FENCE = re.compile(r"[ \t>]*(`{3,}|~{3,})[ \t]*\Z")
_FENCE_LINE = re.compile(r"\s*" + _CONTAINER + r"(?:```|~~~).*\n")
_COMMENT = re.compile(r"\s*(?:#[\s#!]|//|<!--.*-->\s*\Z|@\w)")
_MARKUP = frozenset(["html", "xml", "svg", "md", "markdown", "latex", "tex", "text", "txt"])
_CODE = re.compile(
    r"\s*(?:</?[A-Za-z][^<>]*(?:>|\Z)|<!|import \w|from [\w.]+ import |(?:async )?def \w+\(|class \w+[(:]|@\w"
    r"|(?:print|\w+(?:\.\w+)+)\(|\w[\w., \[\]]* [-+*/]?= (?:[\[({\"']|\w+(?:\.\w+)*\())"
)  # the start of a line of code that no fence announces
_LITERAL = re.compile(r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|#.*|//.*")
_BRACKET = re.compile(r"((?<=[=(\[,:{])\s*\{|\breturn\s*\{|[(\[])|[)\]}{]")  # group 1: joins lines


@dataclass(frozen=True, slots=True)
class _Fence:
    """What opened the fenced code around."""

    marks: str
    column: int
    language: str

    def closed_by(self, line: str) -> bool:
        """By a line of the same mark, at least as many, and nothing else; not if it is indented as code would be."""
        found = _CLOSING_FENCE.match(line.expandtabs(4))
        return bool(found) and found[1].startswith(self.marks) and found.start(1) <= self.column + 3


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
        self._indent = ""  # of that line, where the span before it took it
        self._fence: _Fence | None = None  # of the fenced code around
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
        _, newline, rest = span.rpartition("\n")
        self._line_start = not rest.strip() and bool(newline or self._line_start)
        self._indent = (rest if newline else self._indent + rest) if self._line_start else ""

    def _plain(self, text: str, inside: int, final: bool) -> bool:
        event = _EVENT.search(text, self.read)
        if event is None or event.start() >= inside:
            self.read = max(self.read, inside)
            return False
        self.read, end, sign = event.start(), event.end(), event.group()
        if sign == "\n":
            self._newline(text)
        elif self._fence is not None or self._is_code(text[: self.read]) or self._fence_in(text):
            self.read = end
        elif sign in "。！？｡":
            return self._settle(full_stop_end(text, end, final), end)
        elif sign[0] in ".!?…":
            return self._settle(sentence_end(text, self.read, end, final), end)
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
            if not text[end].isdigit():
                return self._closed(text, self.read, end, final)
            if self._is_price(text):
                self._close = None  # and this is another, perhaps
            else:
                self.read = end
        else:
            after = after_closing(text, end)
            if after == len(text) and not final:
                return False
            if text[after : after + 1].isspace() and self._is_price(text):
                self._close = None
            else:
                self.read = end
        return True

    def _is_price(self, text: str) -> bool:
        """Whether the dollar that opened LaTeX stands before a number, and nothing since is LaTeX."""
        opened = self._opened
        return opened >= 0 and text[opened + 1].isdigit() and not _LATEX.search(text, opened, self.read)

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
            return self._settle(sentence_end(text, len(formula) - 1, end, final), end)
        return self._settle(0, end)

    def _settle(self, sentence_end: int | None, end: int) -> bool:
        if sentence_end is None:
            return False
        self._close = None
        self.read = sentence_end or end
        self._found = sentence_end or None
        return True

    def _newline(self, text: str) -> None:
        """Ends a line, and with it a span, except after blank lines, comments and an open bracket in code."""
        line, before = self._line(text), text[: self.read]
        fence, whole = self._fence_in(text), self._begins_line(text)
        self.read += 1
        if fence and self._fence is None:
            column = len(line[: fence.start(1)].expandtabs(4))
            self._fence = _Fence(fence[1], column, fence[2].lower())
        elif self._fence is not None and whole and self._fence.closed_by(line):
            self._fence, self._found = None, self.read
        elif not before.strip():
            return
        elif self._fence is not None or self._is_code(before):
            goes_on = not line.strip() or (self._fence is not None and _COMMENT.match(line))
            if self._fence is None or self._fence.language not in _MARKUP:
                opening = _FENCE_LINE.match(before)
                goes_on = goes_on or _is_open(before[opening.end() :] if opening else before)
            if not goes_on or before.strip().count("\n") + 1 >= MAX_LINES:
                self._found = self.read
        else:
            self._found = self.read

    def _line(self, text: str) -> str:
        """The open line up to what is read, or as much of it as the open span holds."""
        start = text.rfind("\n", 0, self.read) + 1
        return ("" if start else self._indent) + text[start : self.read]

    def _begins_line(self, text: str) -> bool:
        return self._line_start or "\n" in text[: self.read]

    def _fence_in(self, text: str) -> re.Match[str] | None:
        """The fence that the open line begins with, if it does."""
        return _FENCE.match(self._line(text)) if self._begins_line(text) else None

    def _is_code(self, before: str) -> bool:
        return self._answer and self._line_start and _CODE.match(before) is not None


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
