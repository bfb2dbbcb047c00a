"""Is an answer right? Exact after trimming; code by what it means: the same element tree, or the same Python syntax tree."""

import ast
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

from eyeline.examples import Example


def is_right(example: Example, answer: str) -> bool:
    """Whether the answer is the example's; code answers are parsed, so that spacing and quotes do not count."""
    if example.family != "code":
        return answer.strip() == example.answer.strip()
    meaning = _elements if example.answer.lstrip().startswith("<") else _syntax
    expected = meaning(example.answer)
    return expected is not None and meaning(answer) == expected


def means_the_same(example: Example) -> Callable[[str, str], bool]:
    """Whether a second answer to an example's question means what the first does: by the rule that answers are matched by."""

    def same(first: str, other: str) -> bool:
        return first.strip() == other.strip() or is_right(replace(example, answer=first), other)

    return same


def _syntax(code: str) -> str | None:
    """The syntax tree of Python code as text; None where it does not parse."""
    try:
        return ast.dump(ast.parse(code.strip()))
    except (SyntaxError, ValueError):
        return None


def _elements(html: str) -> list[Any] | None:
    """Tags, attributes and text of HTML in order; None where tags do not match."""
    tree = _Tree()
    tree.feed(html.strip())
    tree.close()
    return tree.seen if not tree.open and tree.whole else None


class _Tree(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []
        self.open: list[str] = []
        self.whole = True

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(
            (tag, sorted((name, (value or "").replace(" ", "").rstrip(";")) for name, value in attrs))
        )
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.whole = False
        self.seen.append(("/", tag))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.seen.append(" ".join(data.split()))
