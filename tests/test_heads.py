"""Which heads are kept, and learning with them alone, on collections whose effects are made of known heads."""

import dataclasses
import json

import pytest
import torch
from click.testing import CliRunner
from test_learning import FAST, FEATURES, HEADS, LAYERS, PLAIN, RUN, linear, synthetic, weights_of

from eyeline.cli import main
from eyeline.errors import DataError
from eyeline.estimator_files import read_estimator
from eyeline.features import KINDS
from eyeline.training import heads
from eyeline.training.collect import save_collected
from eyeline.training.fit import fit
from eyeline.training.heads import (
    by_layer,
    by_loss,
    by_weight,
    choose_heads,
    count_layers,
    heads_of,
    keep_heads,
    learn,
    learn_some,
    order_heads,
)
from eyeline.training.weights import FitSettings, choose, columns_of, learn_weights, split, training_data

# heads of the first and last layer that effects are made of
TWO = weights_of(value={1: 1.0, 4: 0.5}, odds={4: 0.5})


def test_columns_are_kind_major_and_a_head_has_all_its_kinds():
    named = torch.arange(FEATURES).view(len(KINDS), HEADS)
    assert torch.equal(columns_of(FEATURES, KINDS), named.flatten())
    assert torch.equal(columns_of(FEATURES, ("odds", "attention")), named[[2, 0]].flatten())
    assert torch.equal(columns_of(FEATURES, KINDS, [4, 1]), named[:, [1, 4]].flatten())
    two = named[:2].flatten()  # among two kinds
    some = columns_of(2 * HEADS, ("odds", "value"), [5, 2], among=("value", "odds"))
    assert torch.equal(two[some], named[[1, 0]][:, [2, 5]].flatten())


def test_weights_of_some_columns_are_those_of_a_collection_of_them_alone():
    images = synthetic({"math": PLAIN}, 10, noise=0.5)
    some = dataclasses.replace(FAST, kinds=("value", "odds"))
    found = learn(training_data(images, KINDS), some)
    alone, _ = learn_weights(training_data(images, ("value", "odds")), some)
    assert torch.equal(choose(found.weights[None], ("value", "odds"))[0], alone.weights)
    assert not found.weights[:, :HEADS].any()
    of_heads = learn(training_data(images, KINDS), some, [5, 0]).weights.view(len(KINDS), HEADS)
    assert of_heads[1:3, [0, 5]].all()
    assert not of_heads[:, 1:5].any()


def test_a_network_of_some_columns_predicts_what_it_would_of_a_collection_of_them_alone():
    images = synthetic({"math": PLAIN}, 10, noise=0.5)
    settings = FitSettings(("odds", "value"), steps=20, batch=32, hidden=3)
    found = learn(training_data(images, KINDS), settings, [5, 0])
    columns = columns_of(FEATURES, ("odds", "value"), [0, 5])
    wider = dataclasses.replace(settings, hidden=6, dropped=settings.dropped / 2)
    alone, _ = learn_weights(training_data(images, KINDS).of(columns), wider)
    one = images[0]
    features = one.features.float()
    subsets = one.subsets.float().T
    expected = alone.game(features[..., columns], one.log_odds).scores(subsets)
    torch.testing.assert_close(found.game(features, one.log_odds).scores(subsets), expected)
    assert alone.network is not None
    linear = dataclasses.replace(alone, network=None).game(features[..., columns], one.log_odds)
    assert (expected - linear.scores(subsets)).abs().max() > 1e-3


def test_the_two_heads_that_matter_are_kept():
    truth = {"math": weights_of(attention={1: 1.0}, value={1: 0.5, 4: 0.5}, odds={4: 0.5})}
    assert choose_heads(synthetic(truth, 30, noise=0.3), [2, 1], FAST) == {2: [1, 4], 1: [1]}


@pytest.mark.parametrize("importance", [by_weight, by_loss])
def test_a_head_that_another_repeats_is_dropped_only_when_heads_go_by_and_by(importance):
    images = synthetic({"math": weights_of(attention={0: 1.0, 4: 0.7})}, 20)
    for one in images:
        one.features[..., 3] = one.features[..., 0] + 0.1 * torch.randn(one.features.shape[:2])
    learned = training_data(images, KINDS)
    gentle = dataclasses.replace(
        FAST, steps=120, batch=64, rate=2e-2
    )  # which leaves weight spread over what is alike
    assert order_heads(learned, importance, 0.2, gentle)[:2] == [0, 4]
    assert order_heads(learned, importance, 1.0, gentle)[0] == 4


def test_importance_is_a_size_summed_or_what_a_correlation_loses():
    images = synthetic({"math": PLAIN}, 5, noise=0.5)
    for one in images:
        one.features[..., 1] *= 10  # of attention, head 1
    learned = training_data(images, KINDS)
    weights = torch.randn(1, FEATURES, generator=torch.Generator().manual_seed(0))
    every = torch.cat([one.features for one in images]).float()
    moved = (every * weights).square().mean((0, 1)).sqrt()
    found = by_weight(linear(weights), learned)
    torch.testing.assert_close(found, moved.view(len(KINDS), HEADS).sum(0), rtol=1e-3, atol=1e-4)
    inputs = torch.cat([
        torch.einsum("skf,mk->smf", one.features.float(), one.subsets[one.rates > 0].float()) for one in images
    ])  # fmt: skip
    targets = learned.falls[:, : learned.random]

    def correlation(without):
        kept = weights.view(len(KINDS), HEADS).clone()
        kept[:, without] = 0
        pairs = zip(inputs @ kept.flatten(), targets, strict=True)
        return torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]).mean()

    losses = torch.stack([correlation([]) - correlation([head]) for head in range(HEADS)])
    torch.testing.assert_close(by_loss(linear(weights), learned), losses, rtol=1e-3, atol=1e-4)


def test_the_way_to_choose_heads_is_the_best_on_held_out_images(monkeypatch):
    images = synthetic({"math": weights_of(attention={1: 1.0, 4: 0.6})}, 30)
    ranks = torch.arange(HEADS).float()  # a way that always prefers the last head
    blind = (lambda estimator, data: ranks, 1.0)
    for ways in ({"blind": blind, "loss": (by_loss, 1.0)}, {"loss": (by_loss, 1.0), "blind": blind}):
        monkeypatch.setattr(heads, "WAYS", ways)
        assert choose_heads(images, [2], FAST) == {2: [1, 4]}
    monkeypatch.setattr(heads, "WAYS", {"blind": blind})
    assert choose_heads(images, [2], FAST) == {2: [5, 4]}


def test_a_share_of_the_heads_is_kept_at_least_one_and_of_the_kinds_that_are_fitted(monkeypatch):
    images, asked = synthetic({"math": TWO}, 30), []

    def chosen(some, counts, settings):
        asked.append((len(some), sorted(counts), settings.kinds, settings.link, settings.steps))
        return {count: [4, 1, 3][:count] for count in counts}

    monkeypatch.setattr(heads, "choose_heads", chosen)
    settings = FitSettings(("odds",), "identity")
    kept = keep_heads(images, (1.0, 0.5, 0.17, 1e-9), settings)
    assert kept == {1.0: list(range(HEADS)), 0.5: [4, 1, 3], 0.17: [4], 1e-9: [4]}
    assert asked == [(30, [1, 3], ("odds",), "identity", heads.QUICK.steps)]


@pytest.mark.parametrize("share", [0.0, -0.5, 1.01, 2.0, float("nan")])
def test_what_is_no_share_of_heads_is_refused(share):
    images = synthetic({"math": TWO}, 24)
    with pytest.raises(DataError, match="is no share of heads to keep; expected more than 0, and 1 at most"):
        fit(images, RUN, dataclasses.replace(FAST, heads=share), "mine")


def test_heads_are_told_by_layer_and_by_their_number_there():
    assert by_layer([5, 0, 4], 6, 3) == [[0], [], [0, 1]]
    assert by_layer([5, 0, 4], 6, 1) == [[0, 4, 5]]
    assert by_layer([], 6, 2) == [[], []]


def test_a_fit_of_some_heads_chooses_them_where_weights_are_learned_and_makes_more_of_each(monkeypatch):
    images, seen = synthetic({"math": TWO}, 40, noise=0.1), {}

    def chosen(some, counts, settings):
        seen["images"], seen["counts"] = {one.id for one in some}, counts
        return {count: [4, 1] for count in counts}

    def learned(data, settings, device="cpu"):
        seen["settings"], seen["columns"] = settings, data.features.shape[-1]
        return learn_weights(data, settings)

    monkeypatch.setattr(heads, "choose_heads", chosen)
    monkeypatch.setattr(heads, "learn_weights", learned)
    settings = FitSettings(("odds", "value"), steps=30, batch=32, hidden=3, heads=0.34)
    estimator, _ = fit(images, RUN, settings, "mine", LAYERS)
    assert seen["images"] == {one.id for one in split(images)["fit"]}
    assert (seen["settings"].hidden, seen["settings"].dropped, seen["columns"]) == (6, 0.15, 4)
    assert estimator.kinds == ("odds", "value")
    assert estimator.card["heads"] == [[1], [], [0]]
    assert estimator.card["fit"]["heads"] == 0.34
    assert estimator.network is not None
    for columns in (estimator.weights, estimator.network.unit[None], estimator.network.inward):
        used = columns.any(0).view(2, HEADS)
        assert used[:, [1, 4]].all()
        assert not used[:, [0, 2, 3, 5]].any()
    assert estimator.layers(LAYERS) == [0, 2]
    seen.clear()
    whole, _ = fit(images, RUN, dataclasses.replace(settings, heads=1.0), "mine")
    assert (seen["settings"].hidden, seen["settings"].dropped, seen["columns"]) == (3, 0.3, 2 * HEADS)
    assert seen["counts"] == [], "there is nothing to choose"
    assert "heads" not in whole.card


def test_of_all_heads_the_weights_are_those_of_a_fit_without_a_choice():
    learned = training_data(synthetic({"math": TWO}, 12), ("odds", "value"))
    settings = FitSettings(("odds", "value"), steps=10, hidden=3)
    ours, losses = learn_some(learned, settings, range(HEADS))
    theirs, expected = learn_weights(learned, settings)
    assert losses == expected
    assert torch.equal(ours.weights, theirs.weights)


@pytest.fixture
def collection(tmp_path):
    """A folder as `eyeline collect` writes it, whose effects are made of two heads."""
    (tmp_path / "run" / "examples").mkdir(parents=True)
    (tmp_path / "run" / "run.json").write_text(json.dumps(RUN))
    for one in synthetic({"math": TWO}, 40, noise=0.3):
        save_collected(one, tmp_path / "run" / "examples" / f"{one.id}.safetensors")
    return tmp_path / "run"


def command(collection, *more):
    words = ("fit", collection, "--out", collection.parent / "fitted", "--link", "identity", *more)
    return CliRunner().invoke(main, list(map(str, words)))


def test_the_command_keeps_the_heads_that_matter_and_says_which(collection, monkeypatch):
    monkeypatch.setattr(heads, "QUICK", FAST)
    result = command(collection, "--heads", 0.34, "--layers", LAYERS)
    assert result.exit_code == 0, result.output
    estimator = read_estimator(collection.parent / "fitted")
    assert estimator.card["heads"] == [[1], [], [0]]
    assert estimator.weights.any(0).view(3, HEADS).any(0).tolist() == [
        head in (1, 4) for head in range(HEADS)
    ]
    assert estimator.card["loss"] < -0.9
    assert estimator.card["r2_nats_held_out"] > 0.5


def test_layers_that_nobody_knows_are_asked_for_before_anything_is_learned(collection, monkeypatch):
    monkeypatch.setattr(heads, "choose_heads", lambda *_: pytest.fail("heads were chosen"))
    for more, words in (((), "'synthetic' cannot be read; give"), (("--layers", 4), "6 heads do not divide")):
        result = command(collection, "--heads", 0.34, *more)
        assert result.exit_code == 1
        assert words in result.output
        assert not (collection.parent / "fitted").exists()


def test_layers_are_those_given_or_of_the_models_configuration():
    assert count_layers("qwen3-vl-mini", 48) == 6
    assert count_layers("nowhere", 48, 8) == 8
    with pytest.raises(DataError, match="48 heads do not divide into 5 layers"):
        count_layers("qwen3-vl-mini", 48, 5)
    with pytest.raises(DataError, match=r"configuration of 'nowhere' cannot be read; give .* --layers"):
        count_layers("nowhere", 48)


def cut_to(images, kept):
    """The collection as one of these heads alone would be."""
    columns = columns_of(FEATURES, KINDS, kept)
    return [dataclasses.replace(one, features=one.features[..., columns]) for one in images]


def test_a_fit_on_some_heads_collected_alone_is_an_estimator_of_all_with_no_weight_elsewhere():
    images = synthetic({"math": TWO}, 40, noise=0.3)
    kept = [1, 3, 4]
    run = {**RUN, "settings": {**RUN["settings"], "heads": kept, "heads_in_all": HEADS}}
    found, _ = fit(cut_to(images, kept), run, FAST, "mine", LAYERS)
    assert found.card["heads"] == [[1], [1], [0]]
    assert found.weights.any(0).view(len(found.kinds), HEADS).any(0).tolist() == [
        head in kept for head in range(HEADS)
    ]
    narrow, _ = fit(cut_to(images, kept), {**run, "settings": RUN["settings"]}, FAST, "mine", LAYERS)
    one, subsets = images[0], images[0].subsets.float().T
    wide = found.game(choose(one.features, found.kinds).float(), one.log_odds)
    few = narrow.game(choose(cut_to([one], kept)[0].features, narrow.kinds).float(), one.log_odds)
    torch.testing.assert_close(wide.scores(subsets), few.scores(subsets))
    fewer, _ = fit(cut_to(images, kept), run, dataclasses.replace(FAST, heads=0.67), "mine", LAYERS)
    assert fewer.card["heads"] == [[1], [], [0]]


def test_heads_are_chosen_on_a_small_collection_of_all(collection, monkeypatch):
    monkeypatch.setattr(heads, "QUICK", FAST)
    assert heads_of(collection, 0.34) == ((1, 4), HEADS)
    for path in sorted((collection / "examples").iterdir())[9:]:
        path.unlink()
    with pytest.raises(DataError, match="9 images, too few to choose heads on; expected 10"):
        heads_of(collection, 0.34)
    about = json.loads((collection / "run.json").read_text())
    about["settings"]["heads"] = [1]
    (collection / "run.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match="does not hold features of every head"):
        heads_of(collection, 0.34)


def test_heads_of_a_set_are_not_chosen(collection, tmp_path):
    words = ("collect", "--data", tmp_path, "--out", tmp_path / "out", "--heads-of", collection)
    (tmp_path / "examples.jsonl").write_text("")
    result = CliRunner().invoke(main, list(map(str, words)))
    assert result.exit_code == 1
    assert "give --features heads" in result.output


def test_a_share_of_heads_without_a_collection_to_choose_them_on_is_refused(tmp_path):
    words = (
        "collect", "--data", tmp_path, "--out", tmp_path / "out", "--features", "heads", "--heads", "0.2"
    )  # fmt: skip
    (tmp_path / "examples.jsonl").write_text("")
    result = CliRunner().invoke(main, list(map(str, words)))
    assert result.exit_code == 1
    assert "give --heads-of as well" in result.output
