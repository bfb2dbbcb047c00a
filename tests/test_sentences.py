"""Where sentences end: a table of right cuts, abbreviations, names, numbers and full stops without spaces."""

import pytest
from test_spans import SPELT, characters, cuts, spans_of

from eyeline.sentences import is_abbreviation, starts_sentence
from eyeline.spans import Segmenter

SENTENCES = [
    ["The bar is 24.", " The next is 3.14.", " So 24 is taller."],
    ["See Fig. 2 and Eq. 3, e.g. the red one, i.e. No. 5.", " Done."],
    ["Dr. Smith lives in the U.S. Army base.", " He left the U.S. The base stayed."][:1],
    ["He left the U.S.", " The base stayed."],
    ["It opened at 5 a.m. and v1.2.3 of index.html is at https://a.b/c.html?x=1.", " Then it closed."],
    ["It closed at 5 p.m.", " Then I left."],
    ["Wait... is it red?", " Hmm...", " Yes!"],
    ["What?!", " No way.", " No.", " 5 bars."][:3],
    ['He said "Stop."', " Then (he left.)", " **Done.**", " End."],
    ['"Really?" he said.', " OK."],
    ["J. K. Rowling wrote it.", " It was read by J. Smith."],
    ["The point is B.", " Line 2 is C."],
    ["1. First item.", " More of it.\n", "2. Second item\n", "- A bullet\n", "* Another."],
    ["First paragraph\n", "\nSecond one"],
    ["Smith et al. Nature 5 and Acme Inc. Boston, vs. Ms. Lee.", " End."],
    ["Fig. A shows it.", " Sec. II too."],
    ["他说：「你好。」", "我走了！", "真的吗？", "是。"],
    ["そうです。", "はい。"],
    ["The heading says Notes in pink.", " The text says Open now.", " The blue button says OK."],
    ["24 minus 19 is 5.", " x is then 3."],
]

ABBREVIATIONS = [
    ["On Jan. 5 it rose.", " On 5 Feb. Monday it fell."],
    ["Sen. Smith waves.", " He met Gov. Lee, Sgt. Poe and Dr. No."],
    ["At 9 a.m. Monday it opens.", " It is 9 a.m.", " The shop is shut."],
    ["Acme Corp. Boston is on 5th Ave. North.", " The end."],
    ["It lists bars, etc.", " Next are lines."],
    ["Step 1. Read it.\n", "Step 2. Add.\n", "**Step 3.** So it is 5.", " Part B. Yes."],
    ["The bar is 30 mm.", " Bar 2 is 5 ft. 3 in.", " Red wins."],
    ["Show it to me.", " Red is 5.", " The month is May.", " Blue is 6.", " No.", " Red is 5."],
    ["It has an ID.", " Red is 5.", " It is in LA.", " Blue is 6."],
    ["She said yes.", " Smith left.", " See a.html.", " Smith left."],
]

WITHOUT_SPACES = [
    ["太好了！！！", "下一步。"],
    ["真的吗？！", "是。。。", "好。"],
    ["他说：「好！！」。", "然后走了。"],
    ["“一。", "二。”", "三。"],
    ["你好。", "  再见！"],
    ["ほんと！？", "はい。"],
]


@pytest.mark.parametrize(
    "expected", [*SENTENCES, *ABBREVIATIONS, *WITHOUT_SPACES], ids=lambda sentences: sentences[0][:30]
)
@pytest.mark.parametrize("opened", [True, False])
def test_sentences_end_where_they_end(expected, opened):
    assert cuts("".join(expected), opened=opened) == expected


@pytest.mark.parametrize("word", ["Jan", "Sen", "a.m", "Ph.D", "U.S", "etc", "Inc", "dept"])
def test_sentencex_knows_abbreviations(word):
    assert is_abbreviation(word)


@pytest.mark.parametrize("word", ["", "red", "Bar", "me", "May", "ID", "LA", "3", "index.html", "x", "_"])
def test_words_that_end_sentences_are_no_abbreviations(word):
    assert not is_abbreviation(word)


def test_names_go_on_after_an_abbreviation_and_first_words_begin_a_sentence():
    assert not any(map(starts_sentence, ("Smith", "Boston", "Monday", "5", "Zyx")))
    assert all(map(starts_sentence, ("The", "So", "Wait", "Line")))


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("It is red.", " T"),
        ("It is 3.", " T"),
        ("It is red", "\n"),
        ("Is it?!", " Y"),
        ("是红色。", "它"),
        ("「はい。", "い"),
        ("「はい。」", "い"),
        ("太好了！！！", "下"),
        ("At 9 a.m.", " The "),
        ("A fee of $5-$10.", " O"),
        ("The total is **$12**.", " S"),
        ("Left the U.S.", " The "),
        ("So $x$.", " T"),
        ("```\nx = 1\n", ""),
        ("<p>Hi. You</p>", "\n"),
        ("x = f(1)", "\n"),
    ],
)
def test_a_span_is_out_with_the_first_character_that_makes_its_end_certain(text, after):
    segmenter = Segmenter(SPELT, opened=False)
    ids = characters(text + after)
    early = [event for token_id in ids[:-1] for event in segmenter.push(token_id)]
    assert not spans_of(early)
    (span,) = spans_of(segmenter.push(ids[-1]))
    assert span.text == text + ("\n" if after == "\n" else "")
