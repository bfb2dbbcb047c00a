"""Is an answer right? The rule of every data set, in one place: none runs code, none asks another model.

A rule holds what the model said at last against the right answer. Thinking is cut off before, with the marks around answers.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from eyeline.evaluation.code_answers import markup_likeness, python_likeness, same_code
from eyeline.evaluation.expressions import same_formula, value
from eyeline.examples import Example, Matching

LEAST_ALIKE = 0.5  # of two texts, under which ANLS is 0 and no choice is meant
RELAXED = 0.05  # share of the right number by which a relaxed answer may be off
CLOSED = "</think>"
OPENED = "<think>"
AROUND = (
    re.compile(r"<\|begin_of_box\|>(.*?)<\|end_of_box\|>", re.DOTALL),
    re.compile(r"<answer>(.*?)</answer>", re.DOTALL),
)
BEFORE = re.compile(r"\b(?:answer|option|choice)\b\W{0,3}(?:is|are|:)\W{0,4}(?<![-(\[\\{.$])", re.IGNORECASE)
LETTER = re.compile(r"[(\[]?([A-Z])(?:[)\].:,]+|\s*$)")
LONE = re.compile(r"[(\[]?([A-Za-z])[)\]]?[.:,]?")
NUMBER = re.compile(r"[-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?|[-−]?\.\d+")


def marks(example: Example, answer: str) -> float | None:
    """How right an answer is, from 0 to 1, by the rule of the example's data set.

    `answer` is what comes after the thinking; thinking that is still before it is cut off, and where it has no end there is no
    answer, and no mark. None where only a judge could tell.
    """
    matching = _matching(example)
    if not matching.rule:
        return None
    said = final_answer(answer)
    return 0.0 if said is None else RULES[matching.rule](said, example.answer, matching)


def is_right(example: Example, answer: str) -> bool:
    """Whether an answer has all marks, or, where likeness is marked as ANLS does, any."""
    found = marks(example, answer)
    return found is not None and found >= (
        LEAST_ALIKE if example.matching and example.matching.rule == "anls" else 1.0
    )


def means_the_same(example: Example) -> Callable[[str, str], bool]:
    """Whether a second answer to an example's question means what the first does: by the rule that answers are matched by.

    Where only a judge could tell, the same text does.
    """
    matching = _matching(example)

    def same(first: str, other: str) -> bool:
        if first.strip() == other.strip():
            return True
        said = final_answer(first) if matching.rule else None
        meant = None if said is None else MEANT.get(matching.rule, _concluded)(said, matching)
        if not meant:
            return False
        return is_right(replace(example, answer=meant, matching=replace(matching, also=())), other)

    return same


def _matching(example: Example) -> Matching:
    return example.matching or Matching("code" if example.family == "code" else "exact")


def final_answer(text: str, *, opened: bool = False) -> str | None:
    """A trace without its thinking and without the marks around its answer; None where the thinking has no end.

    `opened`: the prompt had opened the thinking.
    """
    _, closed, said = text.rpartition(CLOSED)
    if not closed and (opened or OPENED in text):
        return None
    if OPENED in said:
        return None
    for around in AROUND:
        if found := around.findall(said):
            said = found[-1]
    return said.strip()


def concluded(said: str) -> tuple[str, bool]:
    """What an answer comes down to, and whether it says so: what is boxed, what follows *answer is*, or else its last line."""
    if (boxed := _boxed(said)) is not None:
        return _plain(boxed), True
    if told := list(BEFORE.finditer(said)):
        rest = said[told[-1].end() :].strip()
        if rest:
            return _plain(rest.splitlines()[0]), True
    lines = [line for line in said.splitlines() if line.strip()]
    return _plain(lines[-1]) if lines else "", False


def letter(said: str, choices: Sequence[str] = ()) -> str | None:
    """The letter of the choice that is meant; None where none is, or more than one might be."""
    last = chr(ord("A") + len(choices) - 1) if choices else "Z"
    for text in (concluded(said)[0], _plain(said)):
        if found := LONE.fullmatch(text):
            return found[1].upper() if found[1].upper() <= last else None
        if (found := LETTER.match(text)) and found[1] <= last:
            return found[1]
        meant = [place for place, choice in enumerate(choices) if _same(text, choice)]
        if len(meant) == 1:
            return chr(ord("A") + meant[0])
    named = set(re.findall(r"\(([A-Z])\)|\b(?:[Oo]ption|[Cc]hoice)\W{1,3}([A-Z])\b", concluded(said)[0]))
    letters = {one or other for one, other in named}
    return letters.pop() if len(letters) == 1 and max(letters) <= last else None


def numbers(text: str) -> list[float]:
    return [float(each.replace(",", "").replace("−", "-")) for each in NUMBER.findall(text)]


def likeness(one: str, other: str) -> float:
    """1 less the edit distance (Levenshtein 1966) over the longer text's length; 1 for two empty texts."""
    if len(one) > len(other):
        one, other = other, one
    row = list(range(len(one) + 1))
    for number, mine in enumerate(other, start=1):
        above, row[0] = row[0], number
        for place, yours in enumerate(one, start=1):
            above, row[place] = row[place], min(above + (mine != yours), row[place] + 1, row[place - 1] + 1)
    return 1 - row[-1] / max(len(other), 1)


def _boxed(said: str) -> str | None:
    """The content of the last `\\boxed{}`, braces in it counted."""
    at = said.rfind("\\boxed{")
    if at < 0:
        return None
    depth, begin = 0, at + len("\\boxed{")
    for place in range(begin, len(said)):
        if said[place] == "}":
            if not depth:
                return said[begin:place]
            depth -= 1
        depth += said[place] == "{"
    return None


def _plain(text: str) -> str:
    """Without marks of emphasis and the full stop at its end."""
    text = re.sub(r"\\text(?:bf)?\{([^{}]*)\}", r"\1", text)
    return text.strip().strip("*_`\"'$ ").rstrip(".").strip("*_`\"'$ ")


def _folded(text: str) -> str:
    """Lower case, without punctuation between words, signs and decimal points kept."""
    text = re.sub(r"(?<!\d)[.,](?!\d)|[^\w\s.,%/+\-]|[.,](?!\d)", " ", text.casefold())
    return " ".join(text.split())


def _same(one: str, other: str) -> bool:
    return _folded(one) == _folded(other)


def _readings(said: str) -> Iterator[str]:
    yield said
    yield concluded(said)[0]


def _rights(right: str, matching: Matching) -> tuple[str, ...]:
    return (right, *matching.also)


def _exact(said: str, right: str, matching: Matching) -> float:
    return float(any(said == each.strip() for each in _rights(right, matching)))


def _text(said: str, right: str, matching: Matching) -> float:
    return float(any(_same(text, each) for text in _readings(said) for each in _rights(right, matching)))


def _yes_no(said: str, right: str, matching: Matching) -> float:
    return float(_meant_yes_no(said, matching) == right.strip().casefold())


def _letter(said: str, right: str, matching: Matching) -> float:
    return float(letter(said, matching.choices) == right.strip().upper())


def _choice(said: str, right: str, matching: Matching) -> float:
    """The right answer is a choice's text: meant by its letter, or by the most alike text where any is alike."""
    meant = letter(said, matching.choices)
    if meant is not None:
        return float(matching.choices[ord(meant) - ord("A")] == right)
    alike = [likeness(_folded(concluded(said)[0]), _folded(choice)) for choice in matching.choices]
    best = max(alike, default=0.0)
    return float(best >= LEAST_ALIKE and matching.choices[alike.index(best)] == right)


def _number(said: str, right: str, matching: Matching) -> float:
    """Cut to whole numbers, or rounded to the decimals that the data lay down; without them within rounding."""
    found, wanted = _one_number(said), _one_number(right)
    if found is None or wanted is None:
        return 0.0
    if matching.decimals is None:
        return float(abs(found - wanted) <= max(matching.error, 1e-9 * abs(wanted)))
    if matching.decimals == 0:
        return float(int(found) == int(wanted))
    return float(round(found, matching.decimals) == round(wanted, matching.decimals))


def _one_number(said: str) -> float | None:
    text, told = concluded(said)
    if (worth := value(text)) is not None and not worth.imag:
        return worth.real
    found = numbers(text)
    return (found[0] if told else found[-1]) if found else None


def _numbers(said: str, right: str, _: Matching) -> float:
    """A list of numbers, in order."""
    return float(numbers(concluded(said)[0]) == numbers(right))


def _open(said: str, right: str, matching: Matching) -> float:
    """A number is among those of the answer, rounded alike, or the words stand there in a row."""
    text = concluded(said)[0]
    for each in _rights(right, matching):
        wanted = value(each)
        if wanted is not None:
            if any(round(number, 2) == round(wanted.real, 2) for number in numbers(text)):
                return 1.0
        elif _stands_in(each, text):
            return 1.0
    return 0.0


def _holds(said: str, right: str, matching: Matching) -> float:
    """The words of a right answer stand in the answer, in a row."""
    return float(any(_stands_in(each, said) for each in _rights(right, matching)))


def _stands_in(words: str, text: str) -> bool:
    words = _folded(words)
    return bool(words) and f" {words} " in f" {_folded(text)} "


def _anls(said: str, right: str, matching: Matching) -> float:
    """Average normalised Levenshtein similarity (Biten et al. 2019, arXiv 1905.13648), of the best of the right answers."""
    text, told = concluded(said)
    said = " ".join((text if told else said).casefold().split())
    best = max(likeness(said, " ".join(each.casefold().split())) for each in _rights(right, matching))
    return best if best >= LEAST_ALIKE else 0.0


def _relaxed(said: str, right: str, matching: Matching) -> float:
    """A number within 5 % of the right one, or else the same words (ChartQA, arXiv 2203.10244, section 5.1)."""
    return max(float(_within(text, each)) for text in _readings(said) for each in _rights(right, matching))


def _within(said: str, right: str) -> bool:
    found, wanted = _percent(said), _percent(right)
    if found is not None and wanted:
        return abs(found - wanted) <= RELAXED * abs(wanted) * (1 + 1e-9)
    return _same(said, right)


def _percent(text: str) -> float | None:
    text = text.strip().rstrip(".").lstrip("$")
    share = text.endswith("%")
    if not NUMBER.fullmatch(number := text.rstrip("% ")):
        return None
    return numbers(number)[0] / (100 if share else 1)


def _formula(said: str, right: str, matching: Matching) -> float:
    """Every one of the right answers, and no other; numbers within the error that the data lay down."""
    text = concluded(said)[0]
    return float(same_formula(text, ", ".join(_rights(right, matching)), matching.error))


RULES: dict[str, Callable[[str, str, Matching], float]] = {
    "exact": _exact,
    "text": _text,
    "yes-no": _yes_no,
    "letter": _letter,
    "choice": _choice,
    "number": _number,
    "numbers": _numbers,
    "open": _open,
    "holds": _holds,
    "anls": _anls,
    "relaxed": _relaxed,
    "formula": _formula,
    "code": lambda said, right, _: float(same_code(said, right)),
    "markup": lambda said, right, _: markup_likeness(said, right),
    "python": lambda said, right, _: python_likeness(said, right),
}


def _concluded(said: str, _: Matching) -> str:
    return concluded(said)[0]


def _whole(said: str, _: Matching) -> str:
    return said


def _meant_choice(said: str, matching: Matching) -> str | None:
    meant = letter(said, matching.choices)
    return None if meant is None else matching.choices[ord(meant) - ord("A")]


def _meant_number(said: str, _: Matching) -> str | None:
    found = _one_number(said)
    return None if found is None else repr(found)


def _meant_yes_no(said: str, _: Matching) -> str | None:
    found = re.search(r"\b(yes|no)\b", said.casefold())
    return found and found[1]


# what an answer says as a right answer would be written, by rule; for others what it comes down to
MEANT: dict[str, Callable[[str, Matching], str | None]] = {
    "exact": _whole,
    "code": _whole,
    "markup": _whole,
    "python": _whole,
    "letter": lambda said, matching: letter(said, matching.choices),
    "choice": _meant_choice,
    "number": _meant_number,
    "yes-no": _meant_yes_no,
}
