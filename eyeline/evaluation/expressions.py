"""Formulas in answers: what a LaTeX or plain expression is worth, worked out by a small parser; nothing is run.

Two formulas with letters in them are the same where they are worth the same at several values of the letters.
"""

import cmath
import hashlib
import math
import re
from collections.abc import Callable, Mapping

POINTS = (0.7310585786, 1.6180339887, 2.7182818284)  # where formulas with letters are compared
FUNCTIONS: dict[str, Callable[[complex], complex]] = {
    "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "arcsin": cmath.asin, "arccos": cmath.acos,
    "arctan": cmath.atan, "ln": cmath.log, "log": cmath.log10, "exp": cmath.exp, "sqrt": cmath.sqrt,
    "cot": lambda angle: 1 / cmath.tan(angle), "sec": lambda angle: 1 / cmath.cos(angle),
    "csc": lambda angle: 1 / cmath.sin(angle),
}  # fmt: skip
LEFT_OUT = re.compile(
    r"\\(?:left|right|displaystyle|,|;|!|:|quad|qquad)(?![a-zA-Z])|\$|\\?%|\^\{?\\circ\}?|°|\\ |~"
)
TOKEN = re.compile(r"\d+(?:,\d{3})+(?:\.\d+)?|\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+|\\[a-zA-Z]+|[a-zA-Z]|\*\*|\S")
NAMES = {
    "\\dfrac": "\\frac",
    "\\tfrac": "\\frac",
    "\\cdot": "*",
    "\\times": "*",
    "\\div": "/",
    "**": "^",
    "−": "-",
}
BOUNDS = [(opening, closing) for opening in "([" for closing in ")]"]  # of intervals and points
LARGEST = 1e300
ENDLESS = 400  # tokens of a formula from which on it is none


def same_formula(answer: str, right: str, error: float = 0.0) -> bool:
    """Whether two answers say the same: numbers, formulas, equations, intervals, or several of these in any order.

    `error` is by how much a number may be off; 0 stands for rounding alone.
    """
    answers, rights = _several(answer), _several(right)
    if len(answers) != len(rights):
        return False
    for each in rights:
        match = next((other for other in answers if _same(other, each, error)), None)
        if match is None:
            return False
        answers.remove(match)
    return True


def value(text: str, letters: Mapping[str, complex] | None = None) -> complex | None:
    """What an expression is worth; None for what is none, or has letters that are not given."""
    try:
        found = _Parser(text, {} if letters is None else letters).whole()
        return found if cmath.isfinite(found) and abs(found) < LARGEST else None
    except (LookupError, ValueError, ArithmeticError, RecursionError):
        return None


def _several(text: str) -> list[str]:
    """Parts between commas outside brackets; of plus or minus both."""
    for written, meant in (("{,}", ","), ("\\{", "{"), ("\\}", "}")):
        text = text.replace(written, meant)
    text = LEFT_OUT.sub("", text).strip().rstrip(".")
    text = re.sub(r"\\(?:text|mathrm|mathbf)\{([^{}]*)\}", r" \1 ", text)
    parts, depth, begin = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        thousands = re.match(r",\d{3}(?!\d)", text[at:]) and at and text[at - 1].isdigit()
        if (letter == "," and depth == 0 and not thousands) or letter == ";":
            parts.append(text[begin:at])
            begin = at + 1
    parts = [part.strip() for part in (*parts, text[begin:]) if part.strip()]
    parts = [part for whole in parts for part in re.split(r"\s+and\s+|\s+or\s+", whole)]
    return [
        part.replace("\\pm", sign) for part in parts for sign in (("+", "-") if "\\pm" in part else ("",))
    ]


def _same(answer: str, right: str, error: float) -> bool:
    if "".join(answer.split()) == "".join(right.split()):
        return True
    bounds = [(part[:1], part[-1:]) for part in (answer, right)]
    if all("," in part for part in (answer, right)) and all(bound in BOUNDS for bound in bounds):
        inner = [_several(part[1:-1]) for part in (answer, right)]
        return (
            bounds[0] == bounds[1]
            and len(inner[0]) == len(inner[1])
            and all(_same(one, other, error) for one, other in zip(*inner, strict=True))
        )
    sides = [part.split("=") for part in (answer, right)]
    if all(len(each) == 2 for each in sides):
        one, other = (f"({left})-({end})" for left, end in sides)
        if _alike(one, other, error) or _alike(f"-({one})", other, error):
            return True
    return _alike(sides[0][-1], sides[1][-1], error)


def _alike(answer: str, right: str, error: float) -> bool:
    for point in POINTS:
        one, other = value(answer, _Letters(point)), value(right, _Letters(point))
        if one is None or other is None:
            return False
        if abs(one - other) > max(error, 1e-8 * max(1.0, abs(other))) * (1 + 1e-9):
            return False
    return True


class _Letters(dict[str, complex]):
    """A value for each letter that is asked for, by its name alone."""

    def __init__(self, point: float) -> None:
        super().__init__()
        self.point = point

    def __missing__(self, name: str) -> complex:
        return complex(self.point + hashlib.sha256(name.encode()).digest()[0] / 256)


class _Parser:
    """Sums of products of powers, by descent; numbers, letters, `\\frac`, `\\sqrt`, functions, brackets, bars, factorials."""

    def __init__(self, text: str, letters: Mapping[str, complex]) -> None:
        found: list[str] = TOKEN.findall(LEFT_OUT.sub("", text))
        self.tokens = [NAMES.get(token, token) for token in found]
        if not self.tokens or len(self.tokens) > ENDLESS:
            raise ValueError("no formula")
        self.letters = letters
        self.at = 0

    def next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.tokens[self.at]
        if wanted and token != wanted:
            raise ValueError(f"{wanted} expected")
        self.at += 1
        return token

    def whole(self) -> complex:
        found = self.sum()
        if self.next():
            raise ValueError("more than a formula")
        return found

    def sum(self) -> complex:
        found = self.product()
        while self.next() in ("+", "-") and self.next():
            found = found + self.product() if self.take() == "+" else found - self.product()
        return found

    def product(self) -> complex:
        if self.next() in ("+", "-") and self.next():
            return self.product() if self.take() == "+" else -self.product()
        found = self.power()
        while True:
            token = self.next()
            if token and token in "*/":
                found = found * self.signed() if self.take() == "*" else found / self.signed()
            elif token and (token[0].isalnum() or token in ("(", "{", "[") or token[0] == "\\"):
                found *= self.power()  # side by side
            else:
                return found

    def signed(self) -> complex:
        if self.next() == "-":
            self.take()
            return -self.signed()
        return self.power()

    def power(self) -> complex:
        base = self.atom()
        while self.next() == "!":
            self.take()
            if base.imag or not 0 <= base.real <= 100 or base.real % 1:
                raise ValueError("no factorial")
            base = complex(math.factorial(int(base.real)))
        if self.next() == "^":
            self.take()
            exponent = -self.atom() if self.next() == "-" and self.take() else self.atom()
            if abs(base) > 1 and exponent.real * math.log(abs(base)) > math.log(LARGEST):
                raise ValueError("too large")
            return base**exponent
        return base

    def argument(self) -> complex:
        """A group, or one token: of several digits the first alone."""
        token = self.next()
        if token.isdigit() and len(token) > 1:
            self.tokens[self.at] = token[1:]
            return complex(int(token[0]))
        return self.atom()

    def group(self, opening: str, closing: str) -> complex:
        self.take(opening)
        found = self.sum()
        self.take(closing)
        return found

    def atom(self) -> complex:
        token = self.next()
        if token in ("(", "{", "["):
            return self.group(token, {"(": ")", "{": "}", "[": "]"}[token])
        if token == "|":
            return complex(abs(self.group("|", "|")))
        self.take()
        if token[0].isdigit() or token[0] == ".":
            return complex(float(token.replace(",", "")))
        if token == "\\frac":
            return self.argument() / self.argument()
        if token == "\\sqrt":
            root = self.group("[", "]") if self.next() == "[" else 2
            return self.argument() ** (1 / root)
        if token in ("\\pi", "π"):
            return complex(math.pi)
        if token == "\\log" and self.next() == "_":
            self.take()
            base = self.atom()
            return self.function(lambda number: cmath.log(number, base))
        if token[0] == "\\" and token[1:] in FUNCTIONS:
            return self.function(FUNCTIONS[token[1:]])
        if token == "e":
            return complex(math.e)
        if not token.lstrip("\\").isalpha():
            raise ValueError(f"{token} is no part of a formula")
        return complex(self.letters[token + self.index()])

    def index(self) -> str:
        """What stands below a letter; part of its name."""
        if self.next() != "_":
            return ""
        begin, depth = self.at, 0
        self.take()
        while True:
            token = self.take()
            depth += (token == "{") - (token == "}")
            if not depth:
                return "".join(token for token in self.tokens[begin : self.at] if token not in "{}")

    def function(self, work: Callable[[complex], complex]) -> complex:
        exponent = complex(1)
        if self.next() == "^":
            self.take()
            exponent = self.atom()
        return work(self.power()) ** exponent
