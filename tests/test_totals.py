"""The truth of what answers rest on, scene by scene: what is kept of it, and that a run goes on where it was."""

import dataclasses

import pytest
import torch
from command import succeed
from conftest import build_tiny, picture
from test_generation import scripted

from eyeline import load
from eyeline.errors import DataError
from eyeline.evaluation import totals
from eyeline.evaluation.evaluate import Settings
from eyeline.evaluation.totals import FOLDER, measure_totals, read_totals, total_of
from eyeline.examples import Example
from eyeline.rethinking import NULLS, rethink
from eyeline.scenes import sample
from eyeline.training import collect

SETTINGS = Settings(max_new_tokens=64)


def scene(number=0, answer="24"):
    return Example(f"scene-{number}", picture(seed=number), "How many?", answer, "math", "bars")


def test_totals_of_a_scene_are_those_of_every_region_and_of_the_whole_image(tmp_path):
    model, example = load("mini"), sample("science", 8_000_003)
    assert list(measure_totals(model, [example], tmp_path, SETTINGS)) == [example.id]
    (found,) = read_totals(tmp_path)
    own = collect.answer(model, example, 64, 64)
    regions = collect.regions_of(model, own.picture, own.inputs, "native", SETTINGS.seed)
    assert torch.equal(found.labels, regions.labels[0])
    some = torch.zeros(2, regions.count, dtype=torch.bool)
    some[0, int(found.total.argmax())], some[1] = True, True
    slow = rethink(model, own.inputs, own.ids.tolist(), regions.of_patch, some)
    largest = found.total.argmax()
    expected = torch.stack([slow.changes, slow.total, slow.direct, slow.through], 1)
    one = torch.stack([found.changes, found.total, found.direct, found.through], 1)[largest]
    torch.testing.assert_close(one, expected[0], rtol=0, atol=1e-3)
    whole = torch.tensor([found.whole_changes, found.whole_total, found.whole_direct, found.whole_through])
    torch.testing.assert_close(whole, expected[1], rtol=0, atol=1e-3)
    assert found.changes.max() == 1
    assert found.changes.min() == 0
    assert (found.answer, found.right) == (own.answer, own.answer == example.answer)
    assert [each != own.answer for each in found.again[:-1]] == found.changes.bool().tolist()
    assert found.nulls.shape == (len(NULLS), 3)
    assert found.tokens == len(own.ids)
    assert 0 < found.thinking_tokens < found.tokens


def test_scenes_that_are_there_are_not_measured_again_and_those_without_an_answer_are_kept_as_such(
    tmp_path, monkeypatch
):
    model, measured = scripted("qwen3_vl", "It is 24.</think>24"), []
    real = total_of
    monkeypatch.setattr(totals, "total_of", lambda m, e, s: measured.append(e.id) or real(m, e, s))
    assert list(measure_totals(model, [scene(0)], tmp_path, SETTINGS)) == ["scene-0"]
    assert list(measure_totals(model, [scene(0), scene(1)], tmp_path, SETTINGS)) == ["scene-0", "scene-1"]
    assert measured == ["scene-0", "scene-1"]
    assert [(each.id, each.right, each.whole_changes) for each in read_totals(tmp_path)] == [
        ("scene-0", True, 0), ("scene-1", True, 0),
    ]  # fmt: skip
    silent = scripted("qwen3_vl", "It is 24.")
    assert list(measure_totals(silent, [scene(2)], tmp_path / "silent", SETTINGS)) == ["scene-2"]
    assert read_totals(tmp_path / "silent") == []
    assert len(list((tmp_path / "silent" / FOLDER / "examples").iterdir())) == 1
    with pytest.raises(DataError, match="another settings"):
        list(measure_totals(model, [scene(3)], tmp_path, dataclasses.replace(SETTINGS, seed=9)))


def test_a_code_answer_that_means_the_same_is_no_change(monkeypatch):
    model = scripted("qwen3_vl", "So.</think><b>24</b>")
    example = dataclasses.replace(scene(answer="<b>24</b>"), family="code")
    seen = {}
    monkeypatch.setattr(totals, "rethink", lambda *_, same, **__: seen.update(same=same) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        total_of(model, example, SETTINGS)
    assert seen["same"]("<b>24</b>", "<b>24</b >")
    assert not seen["same"]("<b>24</b>", "<b>25</b>")


def test_a_model_that_samples_by_itself_is_refused(tmp_path):
    model = build_tiny("qwen3_vl")
    model.hf.generation_config.do_sample = True
    with pytest.raises(DataError, match="do_sample to false"):
        list(measure_totals(model, [scene()], tmp_path, SETTINGS))


def test_the_command_measures_totals_beside_everything_else(here, data, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "eyeline.evaluation.totals.measure_totals",
        lambda model, examples, out, settings: asked.append((out.name, settings.hiding)) or iter(examples),
    )
    words = (
        "evaluate",
        "--model",
        "model",
        "--data",
        data,
        "--methods",
        "random",
        "--limit",
        2,
        "--max-new-tokens",
        12,
    )
    succeed(*words, "--out", "with", "--totals")
    assert asked == [("with", "pixels")]
