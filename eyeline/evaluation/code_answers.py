"""Code in answers: parsed, never run. The same meaning, or how much of the elements, calls and words is the same."""

import ast
import re
from collections import Counter
from collections.abc import Iterable
from html.parser import HTMLParser
from typing import Any

VOID = frozenset(
    ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr")
)  # elements of HTML without an end tag
FENCE = re.compile(r"```[\w+-]*\n(.*?)(?:```|\Z)", re.DOTALL)
PAGE = re.compile(r"(?:<!doctype html|<html)\b.*?(?:</html>|\Z)", re.DOTALL | re.IGNORECASE)


def fenced(text: str) -> str:
    """The first block between ``` marks, or all of the text."""
    found = FENCE.search(text)
    return (found[1] if found else text).strip()


def same_code(code: str, right: str) -> bool:
    """The same element tree, or the same Python syntax tree: spacing and quotes do not count."""
    meaning = _elements if right.lstrip().startswith("<") else _syntax
    expected = meaning(right)
    return expected is not None and meaning(code) == expected


def markup_likeness(code: str, right: str) -> float:
    """Of two pages, the mean F1 of their elements and of their words, each as often as it stands there; from 0 to 1."""
    trees = [_read(found[0] if (found := PAGE.search(page)) else page) for page in (fenced(code), right)]
    (tags, words), (right_tags, right_words) = [_parts(tree) for tree in trees]
    return (_f1(tags, right_tags) + _f1(words, right_words)) / 2


def python_likeness(code: str, right: str) -> float:
    """Of two Python texts, the mean F1 of the names that are called and of the values in them; 0 where one does not parse."""
    found, wanted = _calls_and_values(fenced(code)), _calls_and_values(fenced(right))
    if found is None or wanted is None:
        return 0.0
    (calls, values), (right_calls, right_values) = found, wanted
    return (_f1(calls, right_calls) + _f1(values, right_values)) / 2


def _f1(found: Iterable[Any], right: Iterable[Any]) -> float:
    found, right = Counter(found), Counter(right)
    if not found and not right:
        return 1.0
    return 2 * (found & right).total() / (found.total() + right.total())


def _syntax(code: str) -> str | None:
    """The syntax tree of Python code as text; None where it does not parse."""
    try:
        return ast.dump(ast.parse(code.strip()))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _calls_and_values(code: str) -> tuple[list[str], list[Any]] | None:
    try:
        nodes = list(ast.walk(ast.parse(code)))
        calls = [ast.unparse(node.func).rpartition(".")[2] for node in nodes if isinstance(node, ast.Call)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return calls, [repr(node.value) for node in nodes if isinstance(node, ast.Constant)]


def _elements(html: str) -> list[Any] | None:
    """Tags, attributes and text of HTML in order; None where tags do not match."""
    tree = _read(html)
    return tree.seen if not tree.open and tree.whole else None


def _parts(tree: "_Tree") -> tuple[list[str], list[str]]:
    """Names of elements, and words of the text; of styles and scripts none."""
    tags, words, inside = [], [], ""
    for each in tree.seen:
        if isinstance(each, str):
            words += [] if inside in ("style", "script") else each.split()
        elif each[0] != "/":
            tags.append(each[0])
            inside = each[0]
        else:
            inside = ""
    return tags, words


def _read(html: str) -> "_Tree":
    tree = _Tree()
    tree.feed(html.strip())
    tree.close()
    return tree


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
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.whole = False
        self.seen.append(("/", tag))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.seen.append(" ".join(data.split()))
