"""Saved runs thought again: the command, what it tells and refuses, and what both traces differ in."""

import json
from pathlib import Path

import pytest
from command import refuse, run, succeed

from eyeline.runs import read_run
from eyeline.thinking_again import differences

TRACE = "The bar is tall.\nIt is red.</think>Left."
ASKED = ("a.png", "Which?", "--model", "model", "--text", "-", "--save", "run", "--json")


def test_a_run_is_thought_again_without_some_regions_and_both_traces_are_told(here):
    succeed("attribute", *ASKED, stdin=TRACE)
    words = ("rethink", "run", "--regions", "0,1", "--regions", "2")
    told = json.loads(succeed(*words, "--json").stdout)
    assert told["thinking"] == "The bar is tall.\nIt is red."
    assert told["answer"] == "Left."
    assert told["hiding"] == "pixels"
    assert told["samples"] == 1
    assert [each["regions"] for each in told["sets"]] == [[0, 1], [2]]
    assert [each["name"] for each in told["nulls"]] == ["nothing", "plain", "noise"]
    for each in told["sets"]:
        rests = read_run("run").rests_on([each["regions"]])
        assert each["predicted"]["changes"] == pytest.approx(rests.changes[0], abs=1e-6)
        assert each["predicted"]["total"] == pytest.approx(rests.total[0], abs=1e-4)
        assert each["interaction"] == pytest.approx(
            each["total"] - each["direct"] - each["through"], abs=1e-4
        )
        (again,) = each["again"]
        pieces = again["differences"]
        one, two = ("".join(t for kind, t in pieces if kind in ("same", side)) for side in ("first", "again"))
        assert one == "The bar is tall.\nIt is red.\n\nLeft."
        assert two.strip() == f"{again['thinking'].strip()}\n\n{again['answer']}".strip()
        assert each["changes"] == float(again["answer"] != "Left.")
    shown = succeed(*words).stdout
    assert "as it was" in shown
    assert "without regions 0, 1" in shown
    assert "without region 2" in shown
    assert f"{told['sets'][1]['total']:.2f}" in shown
    rows = [line for line in shown.splitlines() if line.startswith(("regions 0, 1 ", "region 2 "))]
    for row, each in zip(rows, sorted(told["sets"], key=lambda each: -each["total"]), strict=True):
        assert (
            f" {100 * each['predicted']['changes']:.0f} % " in row
        )  # as everywhere else, on one line of 80 columns
    assert "predicted: how likely the answer was to change" in shown


def test_every_region_and_the_whole_image_are_asked_by_default(here):
    succeed("attribute", *ASKED, stdin=TRACE)
    count = 1 + max(label for grid in read_run("run").start.regions for row in grid for label in row)
    told = json.loads(succeed("rethink", "run", "--json").stdout)
    assert [each["regions"] for each in told["sets"]] == [
        *([region] for region in range(count)), [*range(count)],
    ]  # fmt: skip
    shown = succeed("rethink", "run").stdout
    assert "the whole image" in shown
    assert "without region " in shown


def test_a_run_whose_ids_say_another_text_than_its_events_is_not_measured(here):
    succeed("attribute", *ASKED, stdin=TRACE)
    path = Path("run/trace.json")
    kept = json.loads(path.read_text(encoding="utf-8"))
    kept["ids"][:2] = kept["ids"][1::-1]
    path.write_text(json.dumps(kept), encoding="utf-8")
    expected = "its token ids in trace.json say another text than its events"
    assert expected in refuse("rethink", "run", "--regions", 0)
    assert expected in refuse("contrast", "run", "--span", 0, "--instead", "Left.")


@pytest.mark.parametrize(
    ("trace", "words", "expected"),
    [
        (TRACE, ("--regions", "0,99"), "expected some of 0 to 5"),
        (TRACE, ("--regions", "most"), "'most' is not a valid integer"),
        (TRACE, ("--samples", 8), "greedy (temperature 0)"),
        (TRACE, ("--model", "other"), "think again with the same model"),
        ("The bar is tall.", (), "thinking was cut off"),
        ("The bar is tall.</think>", (), "has no answer"),
    ],
)
def test_what_cannot_be_thought_again_is_told_in_one_sentence(here, trace, words, expected):
    succeed("attribute", *ASKED, stdin=trace)
    assert expected in refuse("rethink", "run", *words)


def test_a_run_that_keeps_no_token_ids_is_refused_before_the_model_is_loaded(here, monkeypatch):
    succeed("attribute", *ASKED, stdin=TRACE)
    monkeypatch.setattr("eyeline.load", lambda *_: pytest.fail("loaded"))
    Path("run/trace.json").write_text('{"ids": [1, 2', encoding="utf-8")
    assert "is damaged: trace.json" in refuse("rethink", "run")
    Path("run/trace.json").unlink()
    assert "does not keep its token ids" in refuse("rethink", "run")


def test_a_sampled_run_is_kept_with_its_sampler(here):
    words = ("--temperature", 0.7, "--top-p", 0.9, "--max-new-tokens", 12, "--stop", "xyz", "--save", "run")
    succeed("stream", "a.png", "Which?", "--model", "model", "--seed", 1, *words)
    ids, generation = read_run("run").trace()
    assert len(ids) == 12
    assert generation == {
        "do_sample": True, "temperature": 0.7, "top_p": 0.9, "max_new_tokens": 12, "stop_strings": ["xyz"],
    }  # fmt: skip
    assert run("rethink", "run", "--samples", 3).exit_code == 1


def test_a_sampled_run_is_thought_again_so_many_times(here):
    succeed("attribute", *ASKED, stdin=TRACE)
    kept = json.loads(Path("run/trace.json").read_text(encoding="utf-8"))
    kept["generation"] = {"do_sample": True, "temperature": 1.5, "max_new_tokens": 40}
    Path("run/trace.json").write_text(json.dumps(kept), encoding="utf-8")
    told = json.loads(succeed("rethink", "run", "--regions", 1, "--samples", 9, "--json").stdout)
    assert told["samples"] == len(told["sets"][0]["again"]) == 9
    assert len({again["thinking"] for again in told["sets"][0]["again"]}) > 1
    again = json.loads(succeed("rethink", "run", "--regions", 1, "--samples", 9, "--json").stdout)
    assert again == told
    assert "expected at least 8" in refuse("rethink", "run", "--samples", 7)


def test_differences_are_of_words_and_make_up_both_texts():
    first, again = "Bar 1 has 15.\nThe tallest is salt.", "Bar 1 has 5.\nThe tallest is salt. Yes"
    pieces = differences(first, again)
    assert pieces == [
        ("same", "Bar 1 has"), ("first", " 15."), ("again", " 5."), ("same", "\nThe tallest is salt."), ("again", " Yes"),
    ]  # fmt: skip
    assert differences("", "a b") == [("again", "a b")]
    assert differences("a b", "a b") == [("same", "a b")]
