"""The two checks, each against what it is of by literal reruns."""

import csv
import dataclasses

import pytest
import torch
from click.testing import CliRunner
from conftest import picture, tiny_model
from PIL import Image
from slow_hiding import slow_log_probs
from test_baselines_gradient import spans_of, trace_of

import eyeline
from eyeline.ablation import ablate, hidden_patches
from eyeline.errors import DataError
from eyeline.estimator import Estimator
from eyeline.evaluation import sanity
from eyeline.evaluation.evaluate import Settings
from eyeline.evaluation.prediction import estimated
from eyeline.evaluation.sanity import (
    Pair,
    auc,
    check_pair,
    check_weights,
    differing_cells,
    falls_when_seeing,
    in_pairs,
    pooled,
    randomised,
    spearman,
)
from eyeline.examples import COUNTERFACTUAL, Example, write_examples
from eyeline.features import KINDS
from eyeline.regions import Regions
from eyeline.scenes import counterfactual, sample
from eyeline.training.collect import Answered

CELLS = Regions((torch.tensor([[0, 1, 2], [0, 3, 4]]),), 5)
SPREAD = torch.tensor(
    [[0.0, -1.0, 1.0], [2.0, -2.0, 1.0]]
)  # of an estimator's intervals, which are not read here
SETTINGS = Settings(rates=(0.5,), subsets=16)


def example(name="one", image=None):
    return Example(name, image or picture(), "How many?", "3", "math", "bars")


def changed(left=64, top=32, right=96, bottom=64):
    """The picture with one cell, the last, in white."""
    other = picture()
    other.paste((255, 255, 255), (left, top, right, bottom))
    return other


def answered(model, bounds=((0, 5), (5, 12), (12, 21))):
    ids = trace_of(model)
    return Answered([picture()], model.inputs(picture(), "How many?"), ids, spans_of(bounds), "")


def estimator_of(model, scale=3.0):
    size = 3 * 4 * len(KINDS)
    weights = scale * torch.randn(2, size, generator=torch.Generator().manual_seed(1))
    card = {"model": model.name, "hiding": "pixels", "coverage": 0.9}
    return Estimator("mine", weights, SPREAD, SPREAD, KINDS, card=card)


# --- weights


def test_a_randomised_model_has_the_same_numbers_in_other_places_and_leaves_the_trained_one_alone(tiny):
    before = {name: weight.clone() for name, weight in tiny.hf.named_parameters()}
    other = dict(randomised(tiny).hf.named_parameters())
    for name, weight in tiny.hf.named_parameters():
        assert torch.equal(weight, before[name])
        assert torch.equal(other[name].flatten().sort().values, weight.flatten().sort().values)
        assert weight.numel() < 8 or not torch.equal(other[name], weight), name
    again, third = (dict(randomised(tiny, seed).hf.named_parameters()) for seed in (0, 1))
    assert all(torch.equal(again[name], other[name]) for name in other)
    assert not torch.equal(third["lm_head.weight"], other["lm_head.weight"])


def test_the_estimator_is_evaluated_on_what_hiding_does_to_each_model(tiny):
    own, estimator = answered(tiny), estimator_of(tiny)
    models = {"trained": tiny, "randomised": randomised(tiny)}
    found = check_weights(models, estimator, example(), own, CELLS, SETTINGS)
    subsets, _ = sanity.draw_subsets(5, SETTINGS, "one")
    subsets, maps = subsets[:16], {}
    for name, model in models.items():
        hidden = hidden_patches(subsets, CELLS.of_patch)
        falls = ablate(model, own.inputs, own.ids, hidden, "pixels").falls
        predicted = estimated(estimator)(model, own.inputs, own.ids, own.spans, CELLS)
        maps[name] = predicted.shown
        of_spans, of_joint = [], []
        for number, span in enumerate(own.spans):
            actual = falls[:, span.start : span.end].sum(1)
            assert actual.std() > 0.05
            added = torch.stack([predicted.shown[number][subset].sum() for subset in subsets])
            of_spans.append(spearman(added, actual))
            of_joint.append(spearman(predicted.together(subsets)[number], actual))
        assert found[f"eyeline, {name}", "lds"] == pytest.approx(sum(of_spans) / 3, abs=1e-3)
        assert found[f"eyeline, joint, {name}", "lds"] == pytest.approx(sum(of_joint) / 3, abs=1e-3)
    alike = [spearman(*(each[number] for each in maps.values())) for number in range(3)]
    assert found["eyeline, randomised", "map_similarity"] == pytest.approx(sum(alike) / 3, abs=1e-6)
    assert len(found) == 5


def test_a_model_held_against_itself_has_the_same_maps_and_the_same_lds(tiny):
    twice = {"trained": tiny, "same": tiny}
    found = check_weights(twice, estimator_of(tiny), example(), answered(tiny), CELLS, SETTINGS)
    assert found["eyeline, same", "map_similarity"] == pytest.approx(1)
    assert found["eyeline, same", "lds"] == found["eyeline, trained", "lds"]


def test_maps_are_held_against_each_other_only_where_spans_vary_on_the_trained_model(tiny, monkeypatch):
    own, models, nothing = answered(tiny), {"trained": tiny, "randomised": randomised(tiny)}, []
    real = sanity.span_falls

    def still(model, *given):
        falls = real(model, *given).clone()
        if model is tiny:
            falls[nothing] = 0.0  # hiding does nothing to these spans
        return falls

    monkeypatch.setattr(sanity, "span_falls", still)

    def similarity():
        found = check_weights(models, estimator_of(tiny), example(), own, CELLS, SETTINGS)
        return found.get(("eyeline, randomised", "map_similarity"))

    maps = [
        estimated(estimator_of(tiny))(each, own.inputs, own.ids, own.spans, CELLS).shown
        for each in models.values()
    ]
    nothing[:] = [0, 2]
    assert similarity() == pytest.approx(spearman(maps[0][1], maps[1][1]), abs=1e-6)
    nothing[:] = [0, 1, 2]
    assert similarity() is None


# --- pairs


def test_a_token_falls_by_what_another_image_takes_off_its_log_prob(tiny):
    own, seen = answered(tiny), tiny.inputs(changed(), "How many?")
    falls = falls_when_seeing(tiny, own.inputs, seen, own.ids)
    expected = slow_log_probs(tiny, own.inputs, own.ids) - slow_log_probs(tiny, seen, own.ids)
    torch.testing.assert_close(falls, expected, rtol=1e-3, atol=1e-4)
    assert falls.abs().max() > 0.05


def test_the_cells_that_differ_are_found_under_noise(tiny):
    noise = torch.randn(
        tiny.inputs(picture(), "?")["pixel_values"].shape, generator=torch.Generator().manual_seed(0)
    )
    one, other = (tiny.inputs(image, "?")["pixel_values"] for image in (picture(), changed()))
    for spoiled in (other, other + 0.1 * noise):
        assert differing_cells(one, spoiled, 6).tolist() == [False] * 5 + [True]
    assert not differing_cells(one, one, 6).any()


def test_all_methods_tell_of_the_regions_that_hold_the_difference(tiny):
    own, estimator = answered(tiny), estimator_of(tiny)
    two = Image.composite(changed(0, 0, 32, 32), changed(), Image.new("L", (96, 64), 0))
    two.paste((255, 255, 255), (0, 0, 32, 32))  # a cell of region 0, and the only one of region 4
    pair = check_pair(tiny, estimator, example("two", two), own, CELLS, SETTINGS)
    hidden = torch.zeros(3, 6, dtype=torch.bool)
    hidden[0, [0, 3]] = hidden[1, 5] = hidden[2, [0, 3, 5]] = True
    falls = ablate(tiny, own.inputs, own.ids, hidden, "pixels").falls
    predicted = estimated(estimator)(tiny, own.inputs, own.ids, own.spans, CELLS)
    together = predicted.together(torch.tensor([[True, False, False, False, True]]))[:, 0]
    seen = falls_when_seeing(tiny, own.inputs, tiny.inputs(two, "How many?"), own.ids)
    for number, span in enumerate(own.spans):
        of_span = falls[:, span.start : span.end].sum(1)
        assert pair.falls[number].item() == pytest.approx(seen[span.start : span.end].sum().item(), abs=1e-4)
        assert pair.predicted["exhaustive"][number].item() == pytest.approx(
            of_span[:2].sum().item(), abs=1e-3
        )
        assert pair.predicted["hidden together"][number].item() == pytest.approx(of_span[2].item(), abs=1e-3)
        assert pair.predicted["eyeline"][number] == pytest.approx(
            predicted.shown[number, [0, 4]].sum().item(), abs=1e-5
        )
        assert pair.predicted["eyeline, joint"][number] == pytest.approx(together[number].item(), abs=1e-5)


def test_images_that_do_not_differ_make_no_pair_and_others_of_another_size_are_refused():
    model = tiny_model("qwen3_vl")
    given = model, estimator_of(model)
    assert check_pair(*given, example("same"), answered(model), CELLS, SETTINGS) is None
    with pytest.raises(DataError, match="wide asks about an image of another size"):
        check_pair(*given, example("wide", picture(160, 64)), answered(model), CELLS, SETTINGS)


def test_spans_that_fall_are_ranked_above_the_others_or_not():
    falls = torch.tensor([0.1, 3.0, 0.4, 2.0])
    assert auc(torch.tensor([0.0, 5.0, 1.0, 4.0]), falls) == 1
    assert auc(torch.tensor([9.0, 5.0, 1.0, 4.0]), falls) == 0.5
    assert auc(falls, torch.zeros(4)) is None
    assert spearman(falls, falls.exp()) == pytest.approx(1)
    assert spearman(torch.ones(4), falls) == 0
    assert spearman(falls, torch.ones(4)) is None


def pair_of(seed, noise):
    rng = torch.Generator().manual_seed(seed)
    falls = 2 * torch.randn(6, generator=rng)
    return Pair(falls, {"mine": falls + noise * torch.randn(6, generator=rng)})


def test_an_interval_is_of_scenes_drawn_again_and_holds_the_value():
    pairs = [pair_of(seed, 2.0) for seed in range(12)]
    for measure in (spearman, auc):
        value, low, high = pooled(pairs, "mine", measure, draws=200)
        whole = measure(
            torch.cat([one.predicted["mine"] for one in pairs]), torch.cat([one.falls for one in pairs])
        )
        assert value == whole
        assert low < value < high
    assert pooled(pairs, "mine", spearman, draws=50) == pooled(pairs, "mine", spearman, draws=50)
    assert pooled([pairs[0]] * 4, "mine", spearman, draws=50)[1:] == pytest.approx(
        (spearman(pairs[0].predicted["mine"], pairs[0].falls),) * 2, abs=0.1
    )
    assert pooled(pairs[:1], "mine", spearman)[1:] == (None, None)


# --- both


def test_scenes_stand_beside_their_counterfactuals_and_data_without_any_is_refused():
    one, other, alone = example("a"), example("a" + COUNTERFACTUAL), example("b")
    assert in_pairs([one, alone, other]) == [(one, other)]
    with pytest.raises(DataError, match="no counterfactual in the data"):
        in_pairs([one, alone])


def test_the_command_writes_both_checks(tmp_path, monkeypatch):
    model = eyeline.load("mini")
    monkeypatch.setattr(sanity, "load", lambda _: model)
    monkeypatch.setattr(
        sanity,
        "Settings",
        lambda **given: dataclasses.replace(Settings(**given), subsets=4, max_new_tokens=64),
    )
    scenes = [
        each
        for seed in (8_000_001, 8_000_003)
        for each in (sample("math", seed), counterfactual("math", seed))
    ]
    write_examples([each for each in scenes if each is not None], tmp_path / "data")
    asked = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "s.csv")]
    result = CliRunner().invoke(sanity.main, asked, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    with (tmp_path / "s.csv").open() as file:
        rows = {(row["check"], row["method"], row["measure"]): row for row in csv.DictReader(file)}
    for name in ("eyeline", "eyeline, joint"):
        assert {("weights", f"{name}, trained", "lds"), ("weights", f"{name}, randomised", "lds")} <= set(
            rows
        )
    assert float(rows["weights", "eyeline, randomised", "map_similarity"]["value"]) < 0.9
    for name in ("eyeline", "eyeline, joint", "exhaustive", "hidden together"):
        for measure in ("spearman", "auc"):
            assert -1 <= float(rows["pairs", name, measure]["value"]) <= 1
            assert int(rows["pairs", name, measure]["count"]) > 2
