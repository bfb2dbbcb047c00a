"""Scenes with a mark that shows the answer, a copy of the embedded model trained on them, and the check of what is named."""

import csv

import pytest
import torch
from click.testing import CliRunner
from test_sanity import CELLS

from eyeline import load
from eyeline.evaluation import planted
from eyeline.evaluation.planted import MARK, holding, plant
from eyeline.scenes import FAMILIES, draw
from eyeline.training.collect import Answered


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mark_stands_in_a_corner_and_its_number_answers_every_question(family):
    for seed in range(8_000_800, 8_000_806):
        first, second = (planted.planted(family, seed, at) for at in range(2))
        clean, size = draw(family, seed, wild=True), first.scene.image.size
        left, top, right, bottom = first.mark
        assert (right - left, bottom - top) == MARK
        assert left in (0, size[0] - MARK[0])
        assert top in (0, size[1] - MARK[1])
        answers = [one.scene.questions[0].answer for one in (first, second)]
        assert len({*answers, clean.questions[0].answer}) == 3
        assert {each.answer for each in first.scene.questions + first.scene.plain} == {answers[0]}
        assert first.scene.questions[0].trace == clean.questions[0].trace
        inside = first.scene.image.crop(first.mark)
        assert inside.tobytes() != second.scene.image.crop(second.mark).tobytes()
        for one in (first.scene.image, second.scene.image, clean.image):
            one.paste((0, 0, 0), first.mark)
        assert first.scene.image.tobytes() == second.scene.image.tobytes() == clean.image.tobytes()


def test_the_mark_covers_what_its_question_reads_least():
    for seed in range(8_000_800, 8_000_820):
        one = planted.planted("general", seed)
        read = [box for _, boxes in one.scene.questions[0].sentences for box in boxes]
        width, height = one.scene.image.size
        corners = [(left, top) for left in (0, width - MARK[0]) for top in (0, height - MARK[1])]
        covered = [
            sum(planted._overlap((left, top, left + MARK[0], top + MARK[1]), box) for box in read)
            for left, top in corners
        ]
        assert sum(planted._overlap(one.mark, box) for box in read) == min(covered)


def test_regions_that_hold_a_mark_are_those_of_its_cells():
    scene = draw("math", 8_000_801, wild=True)
    one = plant(scene, 42)
    shifted = planted.Planted(one.scene, (32, 32, 96, 64))
    found = holding(CELLS, shifted)
    assert found.nonzero()[:, 0].tolist() == sorted({*CELLS.labels[0][1, 1:3].tolist()})


def test_a_copy_is_trained_and_asked_what_its_answers_rest_on(tmp_path, monkeypatch):
    cheat = tmp_path / "cheat"
    told = []

    def as_marked(model, one, settings):
        found = answered(model, one, settings)
        told.append(one)
        return Answered(found.pictures, found.inputs, found.ids, found.spans, one.scene.questions[0].answer)

    answered = planted.answer_planted
    monkeypatch.setattr(planted, "answer_planted", as_marked)
    monkeypatch.setattr(planted, "FAMILIES", {"math": FAMILIES["math"]})
    monkeypatch.setattr(planted, "BATCH", 2)
    asked = ["--cheat", str(cheat), "--steps", "2", "--seeds", "1", "--out", str(tmp_path / "out.csv")]
    result = CliRunner().invoke(planted.main, asked, catch_exceptions=False)
    assert result.exit_code == 0
    before, after = load("mini").hf.state_dict(), load(cheat).hf.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("language_model" in name for name in changed)
    assert not any("visual.blocks" in name for name in changed)
    with (tmp_path / "out.csv").open() as file:
        rows = {(row["method"], row["measure"]): row for row in csv.DictReader(file)}
    assert float(rows["the cheat", "answers with the mark"]["value"]) == 1
    assert 0 < float(rows["by chance", "mark named first"]["value"]) < 0.6
    assert {row["count"] for row in rows.values()} == {"1"}
    assert ("eyeline, general", "mark named first") in rows
    assert len(told) == 2
