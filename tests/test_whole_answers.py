"""Whole answers in an evaluation: which count, what they are held against, and that their curves are real ablations."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from conftest import picture, tiny_model

from eyeline.ablation import ablate, hidden_patches
from eyeline.evaluation import whole_answers
from eyeline.evaluation.baselines.hiding import span_falls
from eyeline.evaluation.evaluate import Settings, choose_methods, evaluate, read_evaluated
from eyeline.evaluation.table import table
from eyeline.evaluation.whole_answers import kept_areas, read_whole, step_counts, whole_measures
from eyeline.examples import Example, Matching
from eyeline.generation import cut
from eyeline.training.collect import Answered, regions_of

BOXES = ((64, 0, 96, 64),)  # the right column of cells
EXAMPLE = Example(
    "one", picture(), "What?", "red", "general", "set", evidence=(BOXES,), matching=Matching("text")
)


def answered(model, text: str) -> Answered:
    inputs = model.inputs(picture(), EXAMPLE.prompt)
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    said = text.partition("</think>")[2].strip()
    return Answered([picture()], inputs, torch.tensor(ids), cut(model, inputs, ids), said)


def read(model, own: Answered, example: Example = EXAMPLE, effects=None):
    regions = regions_of(model, own.pictures, own.inputs)
    rng = torch.Generator().manual_seed(0)
    found = effects or {"mine": torch.randn(len(own.spans), regions.count, generator=rng)}

    def falls(hidden):
        return span_falls(model, own.inputs, own.ids, own.spans, regions, hidden, "pixels").float()

    return read_whole(model, example, own, regions, found, falls, 8), regions, found


@pytest.fixture
def otherwise(monkeypatch):
    """What the model is made to answer where its image is spoilt, in turn; the images it was asked about."""
    seen, said = [], ["green", "blue"]

    def answer(model, example, most, spans):
        seen.append(example.images)
        return SimpleNamespace(answer=said[(len(seen) - 1) % 2])

    monkeypatch.setattr(whole_answers, "answer", answer)
    return SimpleNamespace(seen=seen, said=said)


def test_what_is_kept_of_a_right_answer_equals_a_literal_rerun(otherwise):
    model = tiny_model("qwen3_vl")
    own = answered(model, "It looks red.\n</think>\n\nRed.")
    kept, regions, found = read(model, own)
    assert (kept["answer"], kept["marks"], kept["right"], kept["changes"]) == ("Red.", 1.0, True, True)
    rows = [row for row, span in enumerate(own.spans) if span.channel == "answer"]
    assert 0 < len(rows) < len(own.spans)
    summed = found["mine"][rows].sum(0)
    assert kept["effects"]["mine"] == pytest.approx(summed.tolist())
    assert kept["covered"] == [0, 0, 1, 0, 0, 1]
    order = summed.argsort(descending=True)
    for number, count in enumerate(step_counts(regions.count)):
        hidden = torch.zeros(regions.count, dtype=torch.bool)
        hidden[order[:count]] = True
        for subset, name in ((hidden, "hidden"), (~hidden, "shown")):
            falls = ablate(
                model, own.inputs, own.ids, hidden_patches(subset[None], regions.of_patch), "pixels"
            ).falls[0]
            literal = sum(float(falls[own.spans[row].start : own.spans[row].end].sum()) for row in rows)
            assert kept[name]["mine"][number] == pytest.approx(literal, abs=1e-3)
    blurred, grey = (images[0] for images in otherwise.seen)
    assert grey.getcolors() == [(96 * 64, (128, 128, 128))]
    assert len(blurred.getcolors(10**6)) > len(picture().getcolors(10**6))


def test_a_wrong_answer_an_open_thinking_and_an_answer_without_the_image_do_not_count(otherwise):
    model = tiny_model("qwen3_vl")
    for text, marked in (("x</think>Blue.", 0.0), ("It is red.", 0.0)):
        kept, *_ = read(model, answered(model, text))
        assert (kept["right"], kept["marks"]) == (False, marked)
        assert "hidden" not in kept
    otherwise.said[:] = ["green", "It is: red"]
    otherwise.seen.clear()
    kept, *_ = read(model, answered(model, "x</think>Red."))
    assert kept["changes"] is True
    otherwise.said[:] = ["red", "green"]
    otherwise.seen.clear()
    kept, *_ = read(model, answered(model, "x</think>Red."))
    assert kept["changes"] is False


def test_an_answer_that_needs_a_judge_counts_for_its_curves_and_changes_where_its_text_does(otherwise):
    example = dataclasses.replace(EXAMPLE, evidence=(), matching=Matching(""))
    model = tiny_model("qwen3_vl")
    kept, *_ = read(model, answered(model, "x</think>A pot."), example)
    assert (kept["marks"], kept["right"], kept["changes"]) == (None, True, True)
    assert "covered" not in kept
    otherwise.said[:] = ["A pot.", "green"]
    otherwise.seen.clear()
    assert read(model, answered(model, "x</think>A pot."), example)[0]["changes"] is False


def test_deletion_and_insertion_are_areas_of_what_is_kept():
    assert step_counts(4) == [1, 2, 3, 4]
    assert step_counts(64) == [6, 13, 19, 26, 32, 38, 45, 51, 58, 64]
    # hidden one by one: kept 1, 0.5, 0, 0, 0; shown: 0, 0.5, 1, 1, 1
    deletion, insertion = kept_areas([2.0, 4.0, 4.0, 4.0], [2.0, 0.0, 0.0, 0.0], 4)
    assert deletion == pytest.approx(0.25 * (0.75 + 0.25))
    assert insertion == pytest.approx(0.25 * (0.25 + 0.75 + 1 + 1))
    assert kept_areas([0.0, 0.01], [0.0, 0.0], 2) is None


def test_measures_are_of_right_answers_that_change_alone():
    whole = {
        "marks": 1.0, "right": True, "changes": True, "labels": [[0, 0, 1], [0, 0, 1]], "covered": [0.0, 0, 1, 0, 0, 1],
        "effects": {"mine": [1.0, 3.0]}, "hidden": {"mine": [3.0, 4.0]}, "shown": {"mine": [1.0, 0.0]},
    }  # fmt: skip
    one = SimpleNamespace(whole=whole, subsets=torch.zeros(1, 2, dtype=torch.bool))
    found = {(metric, at): measure(one) for metric, at, measure in whole_measures("mine")}
    assert found["answer_energy", ""] == [pytest.approx(0.75)]
    assert found["answer_rank_auc", ""] == [1.0]
    assert found["answer_recall", "1%"] == [0.5]
    assert found["answer_recall", "20%"] == [0.5]
    assert found["answer_pointing", ""] == [1.0]
    assert found["answer_deletion", ""] == [pytest.approx((1.25 / 2 + 0.25 / 2) / 2)]
    for other in (None, {"marks": 0.0, "right": False}):
        one.whole = other
        assert all(measure(one) == [] for _, _, measure in whole_measures("mine"))
    one.whole = {**whole, "changes": False}
    found = {metric: measure(one) for metric, _, measure in whole_measures("mine")}
    assert found["answer_energy"] == []
    assert found["answer_deletion"]


def test_an_evaluation_with_answers_keeps_and_tables_them(tmp_path, monkeypatch, otherwise):
    model = tiny_model("qwen3_vl")
    from eyeline.evaluation import evaluate as module

    monkeypatch.setattr(module, "answer", lambda *_: answered(model, "It is.\n</think>\n\nRed."))
    settings = Settings(("random", "centre"), rates=(0.5,), subsets=3, max_new_tokens=8, answers=True)
    chosen = choose_methods(model, settings.methods, (), "pixels")
    two = [dataclasses.replace(EXAMPLE, id=name) for name in ("one", "two")]
    assert list(evaluate(model, two, chosen.methods, tmp_path / "run", settings)) == ["one", "two"]
    read_back = read_evaluated(tmp_path / "run")
    assert set(read_back[0].whole["hidden"]) == {"random", "centre"}
    rows = {
        (row.method, row.metric, row.at): row.value for row in table(read_back, {}) if row.family == "mean"
    }
    assert rows["all", "marks", ""] == 1.0
    for name in ("random", "centre"):
        assert 0 <= rows[name, "answer_energy", ""] <= 1
        assert {at for method, metric, at in rows if (method, metric) == (name, "answer_recall")} == {
            "1%",
            "5%",
            "10%",
            "20%",
        }
