import itertools
from pathlib import Path

import numpy as np
import pytest

from eyeline.errors import DataError
from eyeline.evaluation.answers import is_right
from eyeline.examples import Example, read_examples, write_examples
from eyeline.scenes import FAMILIES, draw, sample

SEEDS = range(40)
CASES = list(itertools.product(FAMILIES, SEEDS))


def test_a_seed_draws_the_same_scene_again():
    for family in FAMILIES:
        one, two = draw(family, 8_000_123), draw(family, 8_000_123)
        assert np.array_equal(np.asarray(one.image), np.asarray(two.image))
        assert one.questions == two.questions


def test_scenes_vary_in_kind_question_size_font_and_ground():
    for family in FAMILIES:
        scenes = [draw(family, seed) for seed in range(200)]
        assert len({scene.kind for scene in scenes}) >= 3
        assert len({question.prompt for scene in scenes for question in scene.questions}) >= 3
        assert len({scene.image.size for scene in scenes}) >= 5
        assert len({scene.canvas.font_file for scene in scenes}) >= 4
        assert len({scene.canvas.background for scene in scenes}) >= 5


def test_every_image_has_64_to_144_visual_tokens():
    for family, seed in CASES:
        width, height = draw(family, seed).image.size
        assert width % 32 == height % 32 == 0
        assert 64 <= width * height // 32**2 <= 144


def test_text_sizes_span_a_factor_of_one_and_a_half():
    heights = [
        box[3] - box[1]
        for family, seed in CASES
        for char, box in draw(family, seed).canvas.glyphs
        if char.isdigit()
    ]
    assert max(heights) >= 1.5 * min(heights)


@pytest.mark.parametrize("family", FAMILIES)
def test_evidence_lies_inside_the_image_and_shows_something(family):
    for seed in SEEDS:
        example = sample(family, seed)
        assert len(example.evidence) == len(example.trace)
        assert any(example.evidence), example
        pixels = np.asarray(example.image)
        for box in itertools.chain(*example.evidence):
            left, top, right, bottom = box
            assert -24 <= left < right <= pixels.shape[1] + 24
            assert -24 <= top < bottom <= pixels.shape[0] + 24
            patch = pixels[max(0, top) : bottom, max(0, left) : right]
            assert patch.std() > 1, (example.id, box)


@pytest.mark.parametrize("family", FAMILIES)
def test_evidence_belongs_to_the_sentence_that_first_reads_it(family):
    for seed in SEEDS:
        boxes = [box for sentence in sample(family, seed).evidence for box in sentence]
        assert len(boxes) == len(set(boxes))


def test_some_questions_have_a_prior_that_the_image_contradicts():
    shares = {family: np.mean([sample(family, seed).prior for seed in range(300)]) for family in FAMILIES}
    assert sum(share > 0.02 for share in shares.values()) >= 3, shares


def test_code_answers_parse_and_score_by_what_they_mean():
    for seed in range(100):
        example = sample("code", seed)
        assert is_right(example, example.answer)
        assert is_right(example, f"\n{example.answer}\n")
        assert not is_right(example, example.answer[:-1])
    page = Example("x", Path(), "", '<h1 style="color:red">Menu</h1>', "code", "page")
    assert is_right(page, "<h1 style='color: red'>\n Menu </h1>")
    assert not is_right(page, '<h1 style="color:blue">Menu</h1>')
    assert not is_right(page, '<h1 style="color:red">Menu')
    data = Example("x", Path(), "", 'data = {"tea": 3}', "code", "plot")
    assert is_right(data, "data = { 'tea' : 3 }")
    assert not is_right(data, "data = {'tea': 4}")
    assert not is_right(data, "data = {'tea': ")


def test_unknown_families_and_seeds_are_refused():
    with pytest.raises(DataError, match="Expected one of math"):
        draw("poetry", 0)
    with pytest.raises(DataError, match="out of range"):
        draw("math", 9_000_000)


def test_a_data_folder_reads_back_what_was_written(tmp_path):
    examples = [sample(family, 7) for family in FAMILIES]
    assert write_examples(examples, tmp_path) == 5
    for before, after in zip(examples, read_examples(tmp_path), strict=True):
        assert (before.id, before.prompt, before.answer, before.trace, before.evidence, before.prior) == (
            after.id, after.prompt, after.answer, after.trace, after.evidence, after.prior,
        )  # fmt: skip
        assert after.image.exists()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("line", ["", "{", '{"id": 1}', "[]", '"text"'])
def test_a_line_that_is_no_example_is_named(tmp_path, line):
    (tmp_path / "examples.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match="Line 1 of"):
        list(read_examples(tmp_path))


def test_a_folder_without_examples_is_refused(tmp_path):
    with pytest.raises(DataError, match="not a data folder"):
        list(read_examples(tmp_path))
