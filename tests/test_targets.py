"""Which tokens some words are."""

import pytest

from eyeline.errors import DataError
from eyeline.events import SpanAttribution, Text
from eyeline.targets import tokens_of

NUMBERS = dict.fromkeys(
    ("interval", "contributions", "contribution_interval", "evidence", "breaks", "patches", "whole_image")
)
THOUGHT = "Row 1 is Ben, row 2 is Ann."
ANSWER = '```json\n{"names": ["Ben", "Ann"], "total": {"sum": 12, "text": "a \\" ] }"}}\n```'


def events(*pieces: tuple[str, str]):
    """One token for each word and the space before it."""
    at, found = 0, []
    for channel, text in pieces:
        words = text.replace(" ", "\n ").split("\n")
        for word in words:
            found.append(Text(channel, word, at, at + 1))
            at += 1
    return [
        *found,
        SpanAttribution(
            0, "thinking", 0, 4, "Row 1 is Ben,", (1.0,), **NUMBERS, log_prob=0.0, cut=False, latency_s=0.0
        ),
    ]


def of_answer(text: str):
    """A token for each character, after one of thinking."""
    return [
        Text("thinking", "Hm.", 0, 3),
        *(Text("answer", char, 3 + at, 4 + at) for at, char in enumerate(text)),
    ]


def told(text: str, ranges) -> str:
    return "".join(text[start - 3 : end - 3] for start, end in ranges)


def test_a_span_is_its_own_tokens():
    assert tokens_of(0, events(("thinking", THOUGHT))) == [(0, 4)]


def test_words_are_the_tokens_of_all_pieces_that_they_touch():
    assert tokens_of("is Ann", events(("thinking", THOUGHT))) == [(6, 8)]
    assert tokens_of("en, r", events(("thinking", THOUGHT))) == [(3, 5)]


def test_characters_count_over_both_channels():
    both = events(("thinking", "Row one."), ("answer", "Ben Ann"))
    assert tokens_of((8, 11), both) == [(2, 3)]
    assert tokens_of((5, 9), both) == [(1, 3)]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$.total.sum", "12"),
        ("$.names[1]", '"Ann"'),
        ('$["names"][0]', '"Ben"'),
        ("$.total.text", '"a \\" ] }"'),
        ("$.names", '["Ben", "Ann"]'),
    ],
)
def test_a_json_field_is_where_its_value_stands_in_the_answer(path, value):
    assert told(ANSWER, tokens_of(path, of_answer(ANSWER))) == value


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (7, "There is no span 7"),
        ("Carl", "do not stand in the text"),
        ("is", "stand there 2 times"),
        ("", "do not stand"),
        ((3, 3), "none of the text's 27"),
        ((0, 99), "none of the text's 27"),
        ((0, 1, 2), "no range of characters"),
        ("$", "no path to a field"),
        ("$.total", "no JSON in the answer"),
        (True, "no target"),
        (1.5, "no target"),
    ],
)
def test_what_is_no_target_is_told_with_what_was_expected(target, message):
    with pytest.raises(DataError, match=message):
        tokens_of(target, events(("thinking", THOUGHT)))


@pytest.mark.parametrize(
    "path", ["$.nothing", "$.names[2]", "$.names.first", "$.total[0]", "$.total.sum.more"]
)
def test_a_field_that_is_not_there_is_told(path):
    with pytest.raises(DataError, match="The answer has no field"):
        tokens_of(path, of_answer(ANSWER))
