"""Every rule that answers are matched by, on answers written by hand: right ones, wrong ones, and those that trap a matcher."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyeline.evaluation.answers import RULES, final_answer, is_right, letter, likeness, marks, means_the_same
from eyeline.evaluation.expressions import same_formula, value
from eyeline.examples import Example, Matching

CHOICES = ("London", "Paris", "Rome")
HTML = "<!DOCTYPE html><html><body><h1>Menu</h1><p>Tea and cake<br></p></body></html>"
PLOT = 'import matplotlib.pyplot as plt\nplt.bar(["tea", "cake"], [3, 5])\nplt.show()\n'


def example(right: str, rule: str, **more) -> Example:
    return Example("one", Path("none.png"), "?", right, "general", "set", matching=Matching(rule, **more))


# rule, right answer, what else the rule knows, answers with all marks, answers with none
HELD = {
    "exact": ("Top left", {"also": ("upper left",)}, ["Top left", " upper left\n"], ["top left", "Top left."]),
    "text": ("Two dogs", {}, ["two dogs.", "**Two dogs**", "The answer is: two dogs."], ["two dog", "dogs two", ""]),
    "text of a number": ("3.5", {}, ["3.5", "The answer is 3.5."], ["35", "-3.5", "3,5"]),
    "yes-no": ("no", {}, ["No", "No, there is none.", "no."], ["Yes", "Nothing", "yes, not no"]),
    "letter": (
        "B", {"choices": CHOICES},
        ["B", "(B)", "b.", "B. Paris", "**B**", "Answer: B", "The correct option is (B).", "\\boxed{B}", "Paris",
         "So A is wrong.\nThe answer is B"],
        ["A", "C. Rome", "A or B", "(A) and (B)", "A big dog", "D", "", "Be careful", "The answer is A, not B"],
    ),
    "choice": (
        "Paris", {"choices": CHOICES},
        ["(B)", "B", "Paris", "the answer is paris", "Pariss"], ["A", "London", "Tokyo-on-Thames", ""],
    ),
    "number": (
        "12", {"decimals": 0},
        ["12", "12.0", "The answer is 12 cm.", "3 + 9 = 12", "\\boxed{12}", "1.2e1"], ["13", "twelve", "", "-12"],
    ),
    "number of decimals": ("0.33", {"decimals": 2}, ["0.33", "1/3", "\\frac{1}{3}", "0.334"], ["0.34", "0.3"]),
    "number with thousands": ("1200", {"decimals": 0}, ["1,200", "The answer is 1,200 people"], ["1.2", "200"]),
    "numbers": ("[1, 2.5]", {}, ["[1, 2.5]", "1 and 2.5"], ["[2.5, 1]", "[1]", "none"]),
    "open": (
        "2.35", {"also": ("about a third",)},
        ["2.352", "So x = 2.35.", "It is about a third of it"], ["2.4", "a third", ""],
    ),
    "holds": ("14 June 1940", {"also": ("June 14",)}, ["It was on 14 June 1940.", "june 14"], ["14 June", "140 June 1940", ""]),
    "relaxed": ("80", {}, ["80", "83.9", "76", "The answer is 81."], ["84.1", "75.9", "80%", "eighty", ""]),
    "relaxed share": ("25%", {}, ["25%", "0.25", "26%"], ["25", "27%"]),
    "relaxed nothing": ("0", {}, ["0"], ["0.01", "1"]),
    "relaxed text": ("Blue", {"also": ("navy",)}, ["blue", "Navy."], ["green"]),
    "formula": (
        "\\frac{1}{2}", {},
        ["0.5", "1/2", "\\boxed{\\frac{1}{2}}", "x = \\frac12", "So the final answer is \\boxed{0.5}."],
        ["0.51", "2", "", "1, 2"],
    ),
    "formula of several": ("2", {"also": ("-2",)}, ["-2, 2", "\\pm 2", "\\boxed{2 \\text{ and } -2}"], ["2", "2, -2, 3", "2, 2"]),
    "formula with an error": ("9.81", {"error": 0.02}, ["9.8", "9.83"], ["9.7", "9.84"]),
    "formula in letters": ("(x-1)(x+1)", {}, ["x^2-1", "$x^{2} - 1$"], ["x^2+1", "y^2-1"]),
    "code": ('<h1 style="color:red">Menu</h1>', {}, ["<h1 style='color: red'>Menu</h1>"], ["<h1>Menu</h1>", "Menu"]),
    "markup": (HTML, {}, [HTML, f"Here it is:\n```html\n{HTML}\n```\nDone."], ["", "x = 3"]),
    "python": (PLOT, {}, [PLOT, f"```python\n{PLOT}```", PLOT.replace('"', "'")], ["plt.bar(", "", "x"]),
}  # fmt: skip


@pytest.mark.parametrize("name", HELD)
def test_right_answers_have_all_marks_and_wrong_ones_none(name):
    right, more, good, bad = HELD[name]
    one = example(right, name.split()[0], **more)
    assert {said: marks(one, said) for said in good} == dict.fromkeys(good, 1.0)
    assert {said: marks(one, said) for said in bad} == dict.fromkeys(bad, 0.0)
    assert all(is_right(one, said) for said in good)
    assert not any(is_right(one, said) for said in bad)


def test_every_rule_is_held_against_answers():
    assert {name.split()[0] for name in HELD} | {"anls"} == set(RULES)


@pytest.mark.parametrize("rule", RULES)
def test_thinking_is_cut_off_before_any_rule_and_without_its_end_there_is_no_answer(rule):
    right, more, good, bad = (
        next(case for name, case in HELD.items() if name.split()[0] == rule)
        if rule != "anls"
        else ("cat", {}, ["cat"], ["xyzzy"])
    )
    one = example(right, rule, **more)
    assert marks(one, f"<think>\n{bad[0]} or not?\n</think>\n{good[0]}") == 1.0
    assert (
        marks(one, f"It may be {good[0]}.</think>{bad[0]}") == 0.0
    )  # the letter in the thinking does not win
    assert marks(one, f"<think>{good[0]}") == 0.0
    assert marks(one, f"<think>a</think>{good[0]}<think>") == 0.0


@pytest.mark.parametrize("name", HELD)
def test_answers_that_are_right_alike_mean_the_same_and_wrong_ones_something_else(name):
    _, more, good, bad = HELD[name]
    same = means_the_same(example("something else", name.split()[0], **more))
    if not {"also", "error"} & set(more):  # then right answers need not mean the same
        assert all(same(good[0], other) for other in good)
    if "error" not in more:
        assert not any(same(good[0], other) for other in bad)


def test_without_a_rule_only_the_same_text_means_the_same():
    same = means_the_same(example("x", ""))
    assert same("A pot.", " A pot.\n")
    assert not same("A pot.", "a pot")


def test_a_trace_whose_prompt_opened_the_thinking_has_an_answer_only_after_its_end():
    assert final_answer("It is B.", opened=True) is None
    assert final_answer("It is B.") == "It is B."
    assert final_answer("It is A. </think>\n\nB", opened=True) == "B"
    assert final_answer("x</think><answer>The sum is <|begin_of_box|>7<|end_of_box|></answer>") == "7"
    assert final_answer("x</think>\n<answer> 7 </answer>") == "7"


def test_what_needs_a_judge_has_no_marks():
    one = example("a red car", "")
    assert marks(one, "a red car") is None
    assert not is_right(one, "a red car")


def test_anls_is_one_less_the_edit_distance_over_the_longer_text_and_nothing_below_a_half():
    one = example("Kitten", "anls", also=("cat",))
    assert marks(one, "kitten") == 1.0
    assert marks(one, "sitting") == pytest.approx(1 - 3 / 7)
    assert marks(one, "The answer is: kitten.") == 1.0
    assert marks(one, "mitts") == pytest.approx(1 - 3 / 6)
    assert marks(one, "dog house") == 0.0
    assert is_right(one, "sitting")
    assert not is_right(one, "dog house")


@given(st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_likeness_is_that_of_the_slow_definition(one, other):
    def distance(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))

    assert likeness(one, other) == 1 - distance(one, other) / max(len(one), len(other), 1)


def test_likeness_of_code_counts_elements_words_calls_and_values():
    page = example("<html><p>one two</p></html>", "markup")
    assert marks(page, "<html><p>one</p><p>three</p></html>") == pytest.approx((2 * 2 / 5 + 2 * 1 / 4) / 2)
    plot = example("bar([1, 2])", "python")
    assert marks(plot, "bar([1, 3])") == pytest.approx((1 + 2 * 1 / 4) / 2)
    assert marks(plot, "line([1, 2])") == pytest.approx(1 / 2)


def test_code_in_answers_is_never_run(tmp_path):
    trap = f"open({str(tmp_path / 'trap')!r}, 'w')"
    for rule in RULES:
        marks(example(trap, rule, choices=(trap, "b")), trap)
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    ("one", "other"),
    [("2\\sqrt{3}", "\\sqrt{12}"), ("3, 5", "5,3"), ("y=2x+1", "2x+1=y"), ("\\left(1, 2\\right]", "(1,2]"), ("90^\\circ", "90"),
     ("\\dfrac{\\pi}{4}", "\\pi/4"), ("x_1+x_{2}", "x_2 + x_1"), ("\\log_{2} 8", "3"), ("5!", "120"), ("-3^2", "-9"),
     ("\\sin^2 x + \\cos^{2} x", "1"), ("|{-3}|", "3"), ("\\frac{m v^2}{2}", "0.5 m v^2"),
     ("1{,}000 \\mathrm{~m}", "1000 \\text{ m}")],
)  # fmt: skip
def test_formulas_that_are_worth_the_same_are_the_same(one, other):
    assert same_formula(one, other)
    assert same_formula(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [("x+1", "x+2"), ("[1,2)", "(1,2)"), ("(1,2)", "(2,1)"), ("3", "3,5"), ("x_1", "x_2"), ("10^{10^{10^{10}}}", "3"),
     ("", "1"), ("(", "1"),
     ("1/0", "2"), ("\\frac{1}", "1"), ("(" * 2000, "1"), ("x" * 1000, "1"), ("import os", "1")],
)  # fmt: skip
def test_other_formulas_and_what_is_none_are_not(one, other):
    assert not same_formula(one, other)


@given(st.text("0123456789+-*/^(){}[]\\fracsqtx_!|=., ", max_size=30))
def test_no_text_breaks_the_parser(text):
    value(text)
    same_formula(text, "1")
    letter(text, CHOICES)


def test_matching_is_kept_in_a_data_folder(tmp_path):
    from conftest import picture

    from eyeline.examples import digest, read_examples, write_examples

    given_ = Example(
        "two", (picture(), picture(seed=1)), "?", "2", "math", "set", evidence=(((0, 0, 8, 8),),),
        matching=Matching("formula", also=("-2",), error=0.1),
    )  # fmt: skip
    write_examples([given_], tmp_path)
    (read,) = read_examples(tmp_path)
    assert read.matching == given_.matching
    assert [Path(image).name for image in read.images] == ["two.png", "two-1.png"]
    assert read.answer_evidence == ((0, 0, 8, 8),)
    assert json.loads((tmp_path / "examples.jsonl").read_text())["matching"]["rule"] == "formula"
    other = Example(**{**{name: getattr(given_, name) for name in given_.__slots__}, "matching": None})
    assert digest(other) == digest(given_)
