"""How answers are evaluated: batches, blanks, counterfactual pairs and traces that say something else."""

import numpy as np
import pytest
import torch
from conftest import picture, tiny_model

from benchmarks import accuracy
from benchmarks.accuracy import Asked, blank, evaluate, pad, readings
from eyeline.examples import Example
from eyeline.generation import Written, write
from eyeline.scenes import counterfactual, sample
from eyeline.training.manners import HELPFUL, PLAIN


def test_questions_in_a_batch_are_answered_as_alone(tiny):
    questions = [
        Asked(picture(96, 64, seed=1), "What is this?"),
        Asked(picture(64, 96, seed=2), "And what is that, in the second one?", begun="I see"),
        Asked(picture(128, 64, seed=3), "Why?"),
    ]
    prompts = [accuracy._begin(tiny, question) for question in questions]
    ids = [write(tiny, prompt, 12)[0].ids for prompt in prompts]
    assert [written.ids for written in write(tiny, pad(prompts), 12)] == ids
    assert len(set(map(tuple, ids))) == 3
    alone = [accuracy.written(tiny, [question], 12)[0].answer for question in questions]
    for size in (16, 3, 2):
        assert [each.answer for each in accuracy.written(tiny, questions, 12, size)] == alone
    if tiny.adapter.family == "glm4v":  # the others' prompts open thinking, and nothing closes it
        assert len(set(alone)) == 3


def test_what_is_begun_stands_after_the_opened_thinking():
    model = tiny_model("glm4v")  # whose template does not open it
    inputs = accuracy._begin(model, Asked(picture(), "Why?", begun="Because"))
    text = model.tokenizer.decode(inputs["input_ids"][0])
    assert text.endswith("<think>\nBecause")
    assert {inputs[name].shape for name in accuracy.PADDED} == {inputs["input_ids"].shape}
    opened = tiny_model("qwen3_vl")
    inputs = accuracy._begin(opened, Asked(picture(), "Why?", begun="Because"))
    assert opened.tokenizer.decode(inputs["input_ids"][0]).endswith("<think>\nBecause")


def test_prompts_are_filled_up_on_the_left():
    model = tiny_model("qwen3_vl")
    short, long = (model.inputs(picture(), prompt) for prompt in ("Why?", "Why is that so?"))
    both = pad([short, long])
    missing = long["input_ids"].shape[1] - short["input_ids"].shape[1]
    assert both["attention_mask"].sum(1).tolist() == [short["input_ids"].shape[1], long["input_ids"].shape[1]]
    assert torch.equal(both["input_ids"][0, missing:], short["input_ids"][0])
    assert both["image_grid_thw"].shape == (2, 3)


def test_blanks_have_the_mean_colour_inside_and_the_picture_outside():
    image = picture()
    blanked = np.asarray(blank(image, [(10, 20, 30, 40)]))
    mean = np.asarray(image).reshape(-1, 3).mean(0).round()
    assert (blanked[20:40, 10:30] == mean).all()
    changed = (blanked != np.asarray(image)).any(-1)
    changed[20:40, 10:30] = False
    assert not changed.any()
    assert (np.asarray(blank(image)) == mean).all()


def test_readings_end_with_the_last_first_look():
    example = Example(
        "x", picture(), "", "", "math", "", trace=("Begin.", "A 1.", "B 2.", "So 3.", "A 1 again."),
        evidence=((), ((0, 0, 1, 1),), ((1, 1, 2, 2),), (), ()),
    )  # fmt: skip
    assert readings(example) == "Begin. A 1. B 2."


@pytest.fixture
def pair():
    for seed in range(20):
        one, other = sample("math", seed), counterfactual("math", seed)
        if other is not None:
            return one, other
    raise AssertionError("no pair")


def saying(answer, tokens):
    return Written([0] * tokens, [], answer)


def test_scores_say_what_the_answers_follow(pair, monkeypatch):
    """A reader that answers by the trace where one has begun, else by the image, and else the first's answer."""
    one, other = pair
    of_image = {np.asarray(each.image).tobytes(): each.answer for each in pair}
    of_trace = {readings(each): each.answer for each in pair}

    asked = []

    def read(model, questions, max_new_tokens):
        asked.extend(questions)
        return [
            saying(
                of_trace.get(each.begun) or of_image.get(np.asarray(each.image).tobytes(), one.answer),
                8 if each.manner.text_first else 4,
            )
            for each in questions
        ]

    monkeypatch.setattr(accuracy, "written", read)
    by_family, by_kind = evaluate(tiny_model("qwen3_vl"), [one, other, sample("code", 3)], 8)
    for manner, tokens in {"image": 4, "text first": 8, "system prompt": 4, "both": 8}.items():
        assert by_family[manner] == {"math": [(1.0, tokens)], "code": [(0.0, tokens)]}
    assert {each.manner for each in asked} == {PLAIN, *accuracy.MANNERS.values()}
    assert by_family["blank"] == by_family["evidence"] == {"math": [(1.0, 4)], "code": [(0.0, 4)]}
    assert by_family["pairs"] == {"math": [(1.0, 4)]}
    assert by_family["trace"] == {"math": [(1.0, 4), (1.0, 4)]}
    assert by_kind["pairs"] == {f"math/{one.source}": [(1.0, 4)]}
    monkeypatch.setattr(
        accuracy, "written", lambda model, questions, most: [saying(one.answer, 4) for _ in questions]
    )
    by_family, _ = evaluate(tiny_model("qwen3_vl"), [one, other], 8)
    assert by_family["pairs"] == {"math": [(0.0, 4)]}
    assert by_family["trace"] == {"math": [(0.0, 4), (1.0, 4)]}


def test_another_manner_of_asking_is_in_the_prompt():
    model = tiny_model("qwen3_vl")

    def prompt(manner):
        inputs = accuracy._begin(model, Asked(picture(), "Why is it?", manner=manner))
        return model.tokenizer.decode(inputs["input_ids"][0])

    image = model.tokenizer.convert_ids_to_tokens(model.adapter.image_token_id(model.hf))
    for manner in (PLAIN, *accuracy.MANNERS.values()):
        text = prompt(manner)
        assert (text.index("Why is it?") < text.index(image)) == manner.text_first
        assert (HELPFUL in text) == bool(manner.system)
