"""Two continuations of a trace, held against their definition: one picture, one text and one pass at a time."""

import json
from dataclasses import replace

import pytest
import torch
from command import refuse, succeed
from conftest import picture, tiny_model
from slow_hiding import slow_log_probs, slow_pixels

from eyeline.contrast import continuations, contrast
from eyeline.errors import DataError, PromptError
from eyeline.events import SpanAttribution
from eyeline.runs import read_run, save_run

QUESTION = "How many?"
TRACE = "The bar is 16 tall. It is 16.</think>16"


@pytest.fixture
def stream(tiny):
    with tiny.attribute(picture(), QUESTION, TRACE) as stream:
        list(stream)
    return stream


def spans(stream):
    return [event for event in stream.events if isinstance(event, SpanAttribution)]


def test_the_change_of_the_difference_is_that_of_its_slow_definition(tiny, stream):
    found = contrast(tiny, stream, 0, "170", words="16")
    inputs = tiny.inputs(picture(), QUESTION)
    grids = stream.events[0].regions
    labels = torch.tensor([label for grid in grids for row in grid for label in row])
    before = tiny.tokenizer("The bar is 1", add_special_tokens=False)["input_ids"]

    def difference(hidden):
        pixels = slow_pixels(tiny, inputs, hidden)
        told = []
        for ending in ("6 ", "70 "):
            ids = torch.tensor([*before, *tiny.tokenizer(ending, add_special_tokens=False)["input_ids"]])
            told.append(slow_log_probs(tiny, inputs, ids, pixel_values=pixels)[len(before) :].sum())
        return float(told[0] - told[1])

    plain = difference(torch.zeros(len(labels), dtype=torch.bool))
    assert (found.written, found.instead) == ("6 ", "70 ")
    assert found.difference == pytest.approx(plain, abs=1e-3)
    slow = [plain - difference(labels == region) for region in range(int(labels.max()) + 1)]
    assert found.effects == pytest.approx(slow, abs=2e-3)
    assert max(map(abs, slow)) > 0.02
    everything = plain - difference(torch.ones(len(labels), dtype=torch.bool))
    assert found.whole_image == pytest.approx(everything, abs=2e-3)


def test_swapping_the_words_turns_all_signs(tiny, stream):
    there = contrast(tiny, stream, 0, "17", words="16")
    with tiny.attribute(picture(), QUESTION, "The bar is 17 tall. It is 16.</think>16") as other:
        list(other)
    back = contrast(tiny, other, 0, "16", words="17")
    assert back.effects == pytest.approx([-effect for effect in there.effects], abs=1e-4)
    assert back.difference == pytest.approx(-there.difference, abs=1e-4)


def test_both_continuations_end_with_the_token_after_the_words():
    model = tiny_model("qwen3_vl")
    with model.attribute(picture(), QUESTION, TRACE) as stream:
        list(stream)
    first, _, answer = spans(stream)

    def told(span, instead, words=None):
        place, *both = continuations(model, stream.ids, span, instead, words)
        return [model.tokenizer.decode(ids) for ids in (stream.ids[:place], *both)]

    assert told(first, "1", "16") == ["The bar is 1", "6 ", " "]  # not "1" as the beginning of "16"
    assert told(first, "The bar is 17 tall.") == ["The bar is 1", "6 tall. ", "7 tall. "]
    assert told(answer, "17")[1:] == ["6", "7"]  # nothing comes after it
    assert told(answer, "x")[0].endswith("</think>")


@pytest.mark.parametrize(
    ("span", "instead", "words", "expected"),
    [
        (9, "17", None, "There is no span 9; expected one of 0 to 2"),
        (0, "17", "18", "'18' do not stand in span 0"),
        (0, "17", "a", "'a' stand 2 times in span 0"),
        (0, "17", "", "'' do not stand in span 0"),
        (0, "16", "16", "'16' is no alternative to '16'"),
        (0, " ", "16", "' ' is no alternative"),
    ],
)
def test_what_cannot_be_contrasted_says_so(span, instead, words, expected):
    model = tiny_model("qwen3_vl")
    with model.attribute(picture(), QUESTION, TRACE) as stream:
        list(stream)
        with pytest.raises(DataError, match=expected):
            contrast(model, stream, span, instead, words=words)


def test_without_an_image_there_is_nothing_to_hide():
    model = tiny_model("qwen3_vl")
    with model.stream([], [{"role": "user", "content": "Two?"}], max_new_tokens=4, seed=0) as stream:
        list(stream)
    with pytest.raises(PromptError, match="The prompt has no image"):
        contrast(model, stream, 0, "17")


def test_a_saved_run_is_contrasted_as_its_stream_was(tmp_path):
    model = tiny_model("qwen3_vl")
    with (
        save_run(tmp_path / "run", [picture()], QUESTION) as run,
        model.attribute(picture(), QUESTION, TRACE) as stream,
    ):
        for event in stream:
            run.write(event)
        run.keep(stream.games, stream.ids, stream.generation)
    read = read_run(tmp_path / "run")
    there = model.contrast(read, 1, "17", words="16")
    assert there == model.contrast(stream, 1, "17", words="16")
    other = replace(read.start, model="another")
    with pytest.raises(DataError, match="The run was written by 'another'"):
        model.contrast(replace(read, events=(other, *read.events[1:])), 1, "17", words="16")


def test_regions_that_are_hidden_already_stay_hidden():
    model = tiny_model("qwen3_vl")
    with model.attribute(picture(), QUESTION, TRACE) as stream:
        list(stream)
    found = contrast(model, stream, 1, "17", words="16", hidden=[2])
    assert found.effects[2] == pytest.approx(0.0, abs=1e-5)
    assert found.difference != pytest.approx(
        contrast(model, stream, 1, "17", words="16").difference, abs=1e-3
    )


def test_the_command_measures_a_saved_run(here):
    succeed("attribute", "a.png", QUESTION, "--model", "model", "--text", "-", "--save", "run", stdin=TRACE)
    words = ("contrast", "run", "--span", 1, "--words", "16", "--instead", "17")
    told = json.loads(succeed(*words, "--json").stdout)
    assert told["measured"] is True
    assert told["difference"] == pytest.approx(told["log_prob"] - told["log_prob_instead"])
    first, second, third, *_ = succeed(*words).stdout.splitlines()
    assert first.startswith("'16' is ")
    assert " than '17' (" in first
    assert first.endswith("measured from where their tokens part: '6.' against '7.'")
    assert second == (
        f"hiding the whole image takes {told['whole_image']:.2f} nats off that; "
        "hiding one region alone, which need not add up to it:"
    )
    strongest = max(range(6), key=lambda region: abs(told["effects"][region]))
    assert third.startswith(f"  region {strongest} (")
    assert "There is no span 9" in refuse("contrast", "run", "--span", 9, "--instead", "17")
    assert "Missing option '--instead'" in refuse("contrast", "run", "--span", 0)
    assert "is not a saved run" in refuse("contrast", "nowhere", "--span", 0, "--instead", "17")
