"""Long scenes: what they hold, how they are told, and how a first misreading is put right."""

import functools
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from eyeline import load
from eyeline.evaluation.answers import is_right
from eyeline.examples import Example, read_examples, write_examples
from eyeline.scenes import FAMILIES, draw, long, sample

CASES = list(itertools.product(FAMILIES, range(24)))


@functools.cache
def drawn(slip):
    return [draw(family, seed, is_long=True, slip=slip) for family, seed in CASES]


def test_a_seed_draws_the_same_long_scene_again_and_it_is_another_than_the_short_one():
    for family in FAMILIES:
        one, two = (draw(family, 8_000_123, wild=True, is_long=True) for _ in range(2))
        assert np.array_equal(np.asarray(one.image), np.asarray(two.image))
        assert one.questions == two.questions
        short = draw(family, 8_000_123, wild=True)
        assert short.image.tobytes() != one.image.tobytes()


def test_every_kind_comes_up_in_images_that_the_embedded_model_takes_whole():
    kinds = {f"long {kind}" for kinds in long.KINDS.values() for kind in kinds}
    wild = [draw(family, seed, wild=True, is_long=True) for family, seed in CASES]
    assert {scene.kind for scene in drawn(False)} == kinds
    for scene in (*drawn(False), *wild):
        assert scene.canvas.width % 32 == scene.canvas.height % 32 == 0
        assert 64 <= scene.canvas.width * scene.canvas.height // 32**2 <= 144


def test_thinking_takes_300_to_800_tokens():
    tokenizer = load("mini").tokenizer
    for slip in (False, True):
        lengths = np.array([len(tokenizer.encode(scene.questions[0].trace)) for scene in drawn(slip)])
        assert np.mean(lengths >= 300) > 0.85
        assert np.mean(lengths <= 800) > 0.9
        assert 350 < np.median(lengths) < 600


def test_every_box_lies_on_the_image_and_what_it_holds_is_drawn():
    for scene in drawn(False):
        for question in scene.questions:
            for _, boxes in question.sentences:
                for left, top, right, bottom in boxes:
                    assert -2 <= left < right <= scene.canvas.width + 2
                    assert -2 <= top < bottom <= scene.canvas.height + 2
                    assert (
                        np.asarray(scene.image.crop((left, top, right, bottom))).reshape(-1, 3).std(0).max()
                        > 0
                    )


def test_each_part_alone_has_the_answer_that_it_has_among_others():
    for scene in drawn(False):
        whole, *parts = scene.questions
        alone = {part.prompt: part.answer for part in parts}
        named = [prompt for prompt in alone if prompt in whole.prompt]
        if len(named) > 1:
            named.sort(key=whole.prompt.index)
            assert "; ".join(alone[prompt] for prompt in named) == whole.answer
        else:
            assert whole.answer == alone[named[0]]


def test_everything_is_read_at_least_twice_and_nothing_is_misread_unless_asked_for():
    for scene in drawn(False):
        whole, part = scene.questions[:2]
        assert whole.slip is None
        trace = whole.trace.lower()
        for text, boxes in part.sentences:
            if boxes:
                assert trace.count(text.lower().removesuffix(".")) >= 2


def test_a_misread_value_is_put_right_and_the_answer_is_the_same_as_without():
    kinds = Counter()
    for scene, right in zip(drawn(True), drawn(False), strict=True):
        question, slip = scene.questions[0], scene.questions[0].slip
        assert np.array_equal(np.asarray(scene.image), np.asarray(right.image))
        text = question.sentences[slip.sentence][0]
        wrong = text[slip.start : slip.end]
        true = {text for text, boxes in right.questions[1].sentences if boxes}
        assert text not in true
        others = [text for text, boxes in question.sentences[1 : len(true) + 1] if boxes]
        assert len(set(others) - true) == 1
        mended = question.sentences[slip.mended[-1]][0]
        assert f"not {wrong}" in mended or f"not a {wrong}" in mended or f"not the {wrong}" in mended
        assert slip.sentence < slip.mended[0]
        kinds[wrong.isdigit()] += 1
        parts = {part.prompt: part.answer for part in scene.questions[1:]}
        named = sorted((each for each in parts if each in question.prompt), key=question.prompt.index)
        assert question.answer == "; ".join(parts[each] for each in named)
    assert min(kinds.values()) > 20


def test_a_long_example_is_written_read_and_scored(tmp_path: Path):
    examples = [sample(family, seed, wild=True, is_long=True) for family in FAMILIES for seed in range(3)]
    assert write_examples(examples, tmp_path) == 15
    read = list(read_examples(tmp_path))
    assert [each.id for each in read] == [each.id for each in examples]
    assert len({each.id for each in examples}) == 15
    assert all(is_right(one, one.answer) for one in read)
    assert all(isinstance(each, Example) and "long" in each.source for each in read)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_long_scene_moves_with_its_photograph(family):
    scenes = [draw(family, seed, wild=wild, is_long=True) for seed in range(12) for wild in (False, True)]
    moved = [
        [boxes for _, boxes in one.questions[0].sentences]
        != [boxes for _, boxes in other.questions[0].sentences]
        for one, other in zip(scenes[::2], scenes[1::2], strict=True)
    ]
    assert any(moved)
    for one, other in zip(scenes[::2], scenes[1::2], strict=True):
        assert one.questions[0].trace == other.questions[0].trace
