import itertools
import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import ImageChops

from eyeline.errors import DataError
from eyeline.evaluation.answers import is_right
from eyeline.examples import Example, read_examples, write_examples
from eyeline.scenes import FAMILIES, ONE_REGION, _without_noise, counterfactual, draw, sample
from eyeline.scenes.canvas import Canvas
from eyeline.scenes.otherwise import Otherwise
from eyeline.scenes.photograph import DISTRACTORS, _distract, photograph
from eyeline.scenes.question import Question
from eyeline.scenes.telling import TELLINGS, tell

SEEDS = range(40)
CASES = list(itertools.product(FAMILIES, SEEDS))


@pytest.mark.parametrize("wild", [False, True])
def test_a_seed_draws_the_same_scene_again(wild):
    for family in FAMILIES:
        one, two = (draw(family, 8_000_123, wild=wild) for _ in range(2))
        assert np.array_equal(np.asarray(one.image), np.asarray(two.image))
        assert one.questions == two.questions


def test_scenes_vary_in_kind_question_size_font_and_ground():
    for family in FAMILIES:
        scenes = [draw(family, seed) for seed in range(80)]
        assert len({scene.kind for scene in scenes}) >= 3
        assert len({question.prompt for scene in scenes for question in scene.questions}) >= 3
        assert len({scene.image.size for scene in scenes}) >= 5
        assert len({scene.canvas.font_file for scene in scenes}) >= 4
        assert len({scene.canvas.background for scene in scenes}) >= 5


@pytest.mark.parametrize("wild", [False, True])
def test_every_image_has_64_to_144_visual_tokens(wild):
    for family, seed in CASES:
        width, height = draw(family, seed, wild=wild).image.size
        assert width % 32 == height % 32 == 0
        assert 64 <= width * height // 32**2 <= 144


def test_photographs_make_text_small_turn_it_and_take_unusual_sheets():
    scenes = [draw(family, seed, wild=True) for family in FAMILIES for seed in range(50)]
    ratios = [scene.canvas.width / scene.canvas.height for scene in scenes]
    assert min(ratios) < 0.5
    assert max(ratios) > 1.7
    heights = [box[3] - box[1] for scene in scenes for char, box in scene.canvas.glyphs if char == "1"]
    assert min(heights) <= 13


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_drawing_remembers_moves_with_a_photograph(family):
    """A mark of a colour that is nowhere else is where its box has gone."""
    for seed in range(30):
        canvas = Canvas(Random(seed))
        box = canvas.note("spot", (60, 70, 90, 100))
        canvas.draw.rectangle((60, 70, 89, 99), fill=(255, 0, 255))
        photographed, move = photograph(canvas, family, Random(seed))
        assert photographed.items[0].box == move(box)
        pixels = np.asarray(photographed.image).astype(int)
        assert pixels.shape == (photographed.height, photographed.width, 3)
        rows, cols = np.nonzero((pixels[..., 0] > 180) & (pixels[..., 1] < 70) & (pixels[..., 2] > 180))
        found = cols.min(), rows.min(), cols.max() + 1, rows.max() + 1
        assert np.abs(np.array(found) - np.array(move(box))).max() <= 3, seed


def test_distractors_stand_where_nothing_else_does():
    """Drawn on a photograph that has none: all but what they add stays as it is."""
    assert {"scribble", "symbol", "word"} == {kind for kinds in DISTRACTORS.values() for kind in kinds}
    for seed in range(20):
        canvas = Canvas(Random(seed))
        canvas.text(20, 60, "closed today", 28)
        before = np.asarray(canvas.image).copy()
        for kind in ("scribble", "symbol", "word"):
            _distract(canvas, kind, Random(seed))
        changed = (np.asarray(canvas.image) != before).any(-1)
        assert changed.any()
        assert not changed[before.std(-1) != np.asarray(canvas.background).std()].any()


def test_tellings_say_the_same_and_the_long_ones_are_long():
    question = Question(
        "Which bar is the tallest?",
        (
            ("Bar 1 is Ann with 3.", ((0, 0, 9, 9),)),
            ("Bar 2 is Ben with 4.", ((9, 0, 19, 9),)),
            ("The tallest has 4, that is Ben.", ()),
        ),
        "Ben",
    )
    told = {}
    for seed in range(100):
        one = tell(question, Random(seed))
        told[one.prompt.removeprefix(question.prompt).strip()] = one
        assert one.answer == "Ben"
        assert question.trace.split(". ")[0] in one.trace
    assert set(told) == set(TELLINGS)
    assert told[""] == question
    assert told["Check your answer."].trace.lower().count("bar 1 is ann") == 2
    assert told["Think step by step and check your answer."].trace.lower().count("bar 1 is ann") == 3
    words = [len(sample(family, seed, wild=True).trace) for family in FAMILIES for seed in range(30)]
    assert max(words) > 15  # sentences


def test_a_choice_made_otherwise_leaves_the_others_as_they_were():
    def play(rng):
        return [
            rng.choice("abcdef"),
            rng.randint(1, 9),
            *rng.sample(range(5), 3),
            rng.uniform(0, 1),
            rng.randrange(7),
        ]

    before = play(Random("seed"))
    counted = Otherwise("seed", at=None)
    assert play(counted) == before
    assert counted.made == 6
    choices = [0, 1, 2, 3, 4, 6]  # places in `before` of the choices
    for at, place in enumerate(choices):
        after = play(Otherwise("seed", at))
        assert [index for index in range(7) if after[index] != before[index]] == [place]
    everything = Random("seed").sample(range(3), 3)
    for at in range(3):
        swapped = Otherwise("seed", at).sample(range(3), 3)
        assert sorted(swapped) == [0, 1, 2]
        assert sum(one != other for one, other in zip(swapped, everything, strict=True)) == 2


@pytest.mark.parametrize("wild", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_counterfactual_differs_in_one_region_and_in_the_answer(family, wild):
    found = 0
    for seed in range(12):
        one, other = sample(family, seed, wild=wild), counterfactual(family, seed, wild=wild)
        if other is None:
            continue
        found += 1
        assert (other.prompt, other.source, other.id) == (one.prompt, one.source, f"{one.id}-counterfactual")
        assert other.answer != one.answer
        assert [bool(boxes) for boxes in one.evidence] == [bool(boxes) for boxes in other.evidence]
        before, after = np.asarray(one.image).astype(int), np.asarray(other.image).astype(int)
        assert before.shape == after.shape
        differs = np.abs(before - after).max(-1) > 50  # more than the noise of a JPEG file far from it
        rows, cols = np.nonzero(differs)
        area = (rows.max() - rows.min() + 1) * (cols.max() - cols.min() + 1)
        assert area <= 1.5 * ONE_REGION * differs.size
    assert found >= 6


def test_text_sizes_span_a_factor_of_one_and_a_half():
    heights = [
        box[3] - box[1]
        for family, seed in CASES
        for char, box in draw(family, seed).canvas.glyphs
        if char.isdigit()
    ]
    assert max(heights) >= 1.5 * min(heights)


@pytest.mark.parametrize("wild", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_evidence_lies_inside_the_image_and_shows_something(family, wild):
    for seed in SEEDS:
        example = sample(family, seed, wild=wild)
        assert len(example.evidence) == len(example.trace)
        assert any(example.evidence), example
        pixels = np.asarray(example.image)
        for box in itertools.chain(*example.evidence):
            left, top, right, bottom = box
            assert -30 <= left < right <= pixels.shape[1] + 30
            assert -30 <= top < bottom <= pixels.shape[0] + 30
            patch = pixels[max(0, top) : bottom, max(0, left) : right]
            assert patch.std() > 1, (example.id, box)


@pytest.mark.parametrize("wild", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_evidence_belongs_to_the_sentence_that_first_reads_it(family, wild):
    for seed in SEEDS:
        boxes = [box for sentence in sample(family, seed, wild=wild).evidence for box in sentence]
        assert len(boxes) == len(set(boxes))


def test_some_questions_have_a_prior_that_the_image_contradicts():
    shares = {family: np.mean([sample(family, seed).prior for seed in range(120)]) for family in FAMILIES}
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


@pytest.mark.parametrize("line", ["{", '{"id": 1}', "[]", '"text"'])
def test_a_line_that_is_no_example_is_named(tmp_path, line):
    (tmp_path / "examples.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match="Line 1 of"):
        list(read_examples(tmp_path))


def test_a_folder_without_examples_is_refused(tmp_path):
    with pytest.raises(DataError, match="not a data folder"):
        list(read_examples(tmp_path))


def test_a_photographed_pair_differs_in_one_region_but_for_noise():
    checked = 0
    for seed in range(8_000_010, 8_000_030):
        for family in ("science", "math"):
            if counterfactual(family, seed, wild=True) is None:
                continue
            images = [_without_noise(family, seed, None)]
            whole = sample(family, seed, wild=True).image
            assert images[0].size == whole.size
            other = counterfactual(family, seed, wild=True).image
            if ImageChops.difference(images[0], whole).getbbox() is None:  # no noise here
                box = ImageChops.difference(whole, other).getbbox()
                assert (box[2] - box[0]) * (box[3] - box[1]) <= ONE_REGION * whole.width * whole.height
                checked += 1
    assert checked > 10


def test_a_field_that_examples_do_not_have_is_refused_with_the_nearest(tmp_path):
    write = (tmp_path / "examples.jsonl").write_text
    write(json.dumps({"id": "1", "image": "a.png", "reliance": 2.0}) + "\n")  # as `eyeline filter` writes it
    assert [example.id for example in read_examples(tmp_path)] == ["1"]
    write(json.dumps({"id": "1", "image": "a.png", "promt": "How many?"}) + "\n")
    with pytest.raises(DataError, match=r"Line 1 of .* has a field 'promt'.*; nearest: 'prompt'"):
        list(read_examples(tmp_path))
    write(json.dumps({"id": "1", "image": "a.png", "colour": "red"}) + "\n")
    with pytest.raises(DataError, match=r"a field 'colour' .*; expected id, image, prompt, .* matching"):
        list(read_examples(tmp_path))
