"""Where a sentence of prose ends: full stops that end it, and those of abbreviations, names and numbers that do not.

What is an abbreviation is known by sentencex, the splitter of Wikimedia. It splits whole texts; here it is asked about
single words, so that an end is known with at most one more word.
"""

import re
from functools import lru_cache

from sentencex import segment  # pyright: ignore[reportAttributeAccessIssue]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words before a full stop that may not end the sentence: it never does, or it does not before a number.
NEVER = _words("e.g i.e cf vs viz approx resp ca dr mr mrs ms prof")
NUMBERED = _words("fig figs eq eqs no nos sec secs tab ref refs p pp vol ch chap art ex")
# Other abbreviations, names' initials and "U.S." end it only before one of these, or of sentencex's own, capitalised
STARTERS = _words(
    "the this that these those it its in on at so but and or if when while then there here i we you he she"
    " they a an as for from to with what which why how let now next first second third finally therefore"
    " thus hence however also both each since because after before looking wait hmm okay ok yes no not is are"
    " does do step line object bar point entry option answer given note our my all only another"
)
# Words that sentencex takes for abbreviations, and that end sentences far more often than not
ORDINARY = _words("arc ark art con fed hon id ida ill ing ken la ma may me miss no ok op pa re")
BY = _words("by of and from to for with or author authors")  # lower-case words before a name
LABELS = "step|part|case|question|problem|task|example|exercise|phase|stage|section|chapter|round"

CLOSERS, STOPS = "」』”’）》】〉", "。！？｡…"
_CLOSING = re.compile(r"[\"')\]}»*_`" + CLOSERS + "]*")
_RUN = re.compile(f"[{STOPS}{CLOSERS}!?]*")
_SPACE = re.compile(r"[^\S\n]*")
_ENUMERATOR = re.compile(
    rf"[\s>#*+(\[_-]*(?:(?:{LABELS})\s+)?(?:\d{{1,3}}|[A-Za-z]|[ivxIVX]+)", re.IGNORECASE
)
_WORD = re.compile(r"[\w.]*\Z")
_WORD_BEFORE = re.compile(r"(\w+)\W+\w\Z")
_NEXT_WORD = re.compile(r"[\w']+")
_ACRONYM = re.compile(r"(?:[A-Za-z]\.)+[A-Za-z]")
_UNIT = re.compile(r"\d\s*[a-zµ]+\Z")


def sentence_end(text: str, stop: int, after: int, final: bool) -> int | None:
    """Where the sentence ends whose full stops are at `text[stop:]`; 0: it goes on; None: not certain yet.

    `after`: where closing quotes and brackets may follow. `final`: the text will not grow.
    """
    end = after_closing(text, after)
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
    if word.lower() in NEVER or _ENUMERATOR.fullmatch(head):
        return 0
    if word.lower() in NUMBERED:
        if word.lower() != "no" and following.isupper():  # "Fig. A", "Sec. II"
            second = text[rest + 1 : rest + 2]
            return (0 if not second.islower() else end) if second or final else None
        return 0 if following.isdigit() or following in "(#" else end
    initial = len(word) == 1 and word.isupper()
    if initial and (before := _WORD_BEFORE.search(head)) and before[1].islower() and before[1] not in BY:
        return end  # "at point B. Line 2": no name
    if following.isupper() and _UNIT.search(head):
        return end  # "30 mm. Bar 2": no abbreviation of a name
    if initial or is_abbreviation(word):
        following_word = _NEXT_WORD.match(text, rest)
        if following_word and following_word.end() == len(text) and not final:
            return None
        return end if following_word and starts_sentence(following_word.group()) else 0
    return end


def full_stop_end(text: str, after: int, final: bool) -> int | None:
    """As `sentence_end`, for a full stop that needs no space after it: past all stops and closing marks that follow."""
    end = _RUN.match(text, after).end()  # pyright: ignore[reportOptionalMemberAccess]
    if end == len(text) and not final:
        return None
    return end if any(map(str.isalnum, text[:after])) else 0


def after_closing(text: str, start: int) -> int:
    """Past the closing quotes, brackets and emphasis that stand there."""
    return _CLOSING.match(text, start).end()  # pyright: ignore[reportOptionalMemberAccess]


def is_abbreviation(word: str) -> bool:
    """Whether a full stop after the word may be its own: "Jan", "Sen", "a.m", but no word in capitals."""
    if _ACRONYM.fullmatch(word):
        return True
    if not 1 < len(word) <= 12 or word.isupper() or word.lower() in ORDINARY:
        return False
    return not _splits(word, "Smith")


def starts_sentence(word: str) -> bool:
    """Whether a capitalised word after an abbreviation begins a sentence rather than goes on with a name."""
    return word.lower() in STARTERS or (word.isalpha() and len(word) <= 12 and _splits("etc", word))


@lru_cache(maxsize=4096)
def _splits(word: str, following: str) -> bool:
    return len(segment("en", f"{word}. {following} waves.")) > 1
