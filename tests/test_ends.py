"""Where spans end in LaTeX, prices, code and Markdown, and that it depends on the text alone."""

from itertools import accumulate, cycle, islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sentences import ABBREVIATIONS, SENTENCES, WITHOUT_SPACES
from test_spans import SPELT, cuts, spans_of

from eyeline.spans import Segmenter

LATEX = [
    ["So $x = 3. Y$ holds.", " Next $f(n!) = 5.$", " End."],
    ["It costs $5.", " Then $6 more.", " And $3.50. In all."][:2],
    ["We have $$a. B\n= 5.$$", " Next."],
    ["Then \\[ a. B \\\\[2pt] c. D \\] holds.", " Next \\( a. B \\).", " End."],
    ["\\begin{align}\na. B \\\\\nc. D\n\\end{align}\n", "Next."],
    ["Open \\[ a. B\n\n", "A paragraph ends it.", " Yes."],
    ["Then $2^3 = 8. Y$ holds.", " Next $3x_1 = 6. Y$ too."],
    ["It is $5 and $x = 2. Y$ holds.", " End."],
    ["So $3x + 5 = 8.$", " Next $12,000$.", " End."],
    ["A price of $5 million.", " An angle \\alpha.", " A backslash \\."],
]


PRICES = [
    ["A fee of $5-$10.", " Ok."],
    ["$20 (tax).", " Next."],
    ["Rent is $900/month.", " Food is $200/month.", " Sum it."],
    ["The total is **$12**.", " So the change is **$8**.", " Done."],
    ["Is it ($5)?", " No, it is **$6.**", " Then _$7_.", " A $1.2M deal!", " Yes."],
    ["It costs $5, $6 or $7 for _tax_ and all.", " US$8.", " End."],
]


@pytest.mark.parametrize("expected", PRICES, ids=lambda spans: spans[0][:30])
def test_a_price_is_no_latex(expected):
    assert cuts("".join(expected)) == expected


@pytest.mark.parametrize("expected", LATEX, ids=lambda spans: spans[0][:30])
def test_latex_is_left_whole(expected):
    assert cuts("".join(expected)) == expected


CODE = [
    [
        "```python\nimport x\n",
        "# Sets it. All.\n\nlabels = [\n  1,\n  2]\n",
        "\nplt.bar(x. y)\n",
        "```\n",
        "Done.",
    ],
    ["Here it is:\n", "```html\n<body>\n", "<p>Hi. There (</p>\n", "</body>\n", "```"],
    ["<body>\n", '<h1 style="color:red">Plans. All</h1>\n', "<p>Costs $5. Then $6.</p>\n", "</body>"],
    ['labels = ["a. B", "c"]\n', "values = [1,\n2]\n", 'plt.bar(labels, values, color="red")'],
    ["```js\nif (x) {\n", "  f({\n    a: 1})\n", "}\n", "```"],
    ["def f(x):\n", "    return x\n", "\nprint('Hi. There')"],
    ["```\n" + "x = [\n" + "1,\n" * 6, "1,\n", "]\n", "```"],  # a statement is cut at 8 lines
]


@pytest.mark.parametrize("expected", CODE, ids=lambda spans: spans[0][:30])
def test_code_ends_with_its_lines_and_statements(expected):
    assert cuts("".join(expected)) == expected


FENCES = [
    ["````text\n```py\n", "x. Y\n", "```\n", "````\n"],
    ["~~~\n```\n", "A. B\n", "```\n", "~~~\n"],
    ["~~~ a `b. C`\nA. B\n", "~~~~~\n"],
    ["```f(x)``` is a call.", " It returns.\n"],
    ["It is ```f(x)``` here.", " It returns.\n"],
    ["1. ```py\n   x = f. y\n", "   ```\n"],
    ["- ```py\nx = f. y\n", "```\n"],
    ["> - ```py\n> x = f. y\n", "> ```\n"],
    ["10) ~~~\n    a. B\n", "    ~~~\n"],
    ["```py\ndef f():\n", "    ```\n", "    x. Y\n", "```\n"],
    ["```py\nx\n", "```py\n", "y. Z\n", "``\n", "~~~\n", "``` \n"],
    ["``\n", "A. b``\n"],
]


@pytest.mark.parametrize("fenced", FENCES, ids=lambda spans: spans[0][:30])
def test_fenced_code_ends_with_a_fence_as_long_as_its_own(fenced):
    prose = ["Prose is here.", " More of it."]
    assert cuts("".join([*fenced, *prose]), opened=True) == [*fenced, *prose]
    assert cuts("".join(["So:\n", *fenced, *prose]), opened=True) == ["So:\n", *fenced, *prose]


def test_code_that_is_cut_stays_code_until_its_fence():
    text = "```py\n" + "word " * 60 + "```\nx. Y\n```\nProse is here. More of it."
    assert cuts(text, max_tokens=40)[-4:] == ["x. Y\n", "```\n", "Prose is here.", " More of it."]


TABLES = [*SENTENCES, *ABBREVIATIONS, *WITHOUT_SPACES, *LATEX, *PRICES, *CODE, *FENCES]
BETWEEN = st.sampled_from(["", "\n", "\n\n", " ", " and ", "\n$", "**", "```\n", ". "])
texts = st.lists(st.sampled_from(TABLES).map("".join) | BETWEEN, max_size=6).map(
    lambda parts: "".join([*parts, "\nThe end."])
)


def cut_at(text: str, tokens: list[str], opened: bool) -> list[str]:
    """The spans where those are the texts of the tokens, without the white space that a token may tie to them."""
    assert "".join(tokens) == text
    segmenter = Segmenter(SPELT, opened=opened, max_tokens=10_000)
    segmenter._count = len(tokens)
    events = [event for n, token in enumerate(tokens) for event in segmenter._take([(token, n + 1)])]
    return [text for span in spans_of(events + segmenter.finish()) if (text := span.text.strip())]


@settings(max_examples=150)
@given(text=texts, lengths=st.lists(st.integers(1, 2), min_size=1, max_size=50), opened=st.booleans())
def test_spans_are_the_same_whatever_the_tokens(text, lengths, opened):
    """With tokens of at most two characters, so that no span but a blank one lies inside a single token."""
    starts = [0, *accumulate(islice(cycle(lengths), len(text)))]
    tokens = [part for at, to in pairwise(starts) if (part := text[at:to])]
    expected = cut_at(text, list(text), opened)
    assert cut_at(text, tokens, opened) == expected
