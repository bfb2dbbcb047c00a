"""A fit finds the weights that are there, tells what it did, and refuses data that cannot carry it."""

import dataclasses

import pytest
import torch
from synthetic import FAST, NETWORK, ODDS, RUN, singles, synthetic

from eyeline.errors import DataError
from eyeline.features import KINDS
from eyeline.training.fit import COVERAGE, FEWEST_IMAGES, fit
from eyeline.training.weights import split, training_data


def test_known_weights_are_recovered_with_their_size_in_nats():
    images, truth = synthetic(60)
    estimator, report = fit(images, RUN, FAST, "mine")
    assert report["losses"][-1] < -0.999
    assert report["losses"][0] > -0.9
    spread = torch.cat([one.features.float().flatten(0, 1) for one in images]).std(0)
    torch.testing.assert_close(estimator.weights[0] * spread, truth * spread, rtol=0.03, atol=0.01)
    predicted, _, actual, _ = singles(synthetic(20, seed=9, prefix="new")[0], estimator)
    assert float((predicted @ actual) / (predicted @ predicted)) == pytest.approx(1, abs=0.02)
    assert float(torch.corrcoef(torch.stack([predicted, actual]))[0, 1]) > 0.999
    assert estimator.card["r2_nats_held_out"] > 0.99
    assert estimator.card["lds_held_out"] > 0.99


def test_weights_behind_the_odds_of_tokens_are_recovered_and_predict_regions_hidden_together():
    images, truth = synthetic(60, link="log-odds")
    estimator, report = fit(images, RUN, ODDS, "mine")
    assert report["losses"][-1] < -0.99
    spread = torch.cat([one.features.float().flatten(0, 1) for one in images]).std(0)
    torch.testing.assert_close(
        estimator.weights * spread, (truth * spread).expand(2, -1), rtol=0.15, atol=0.08
    )
    new = training_data(synthetic(20, seed=9, link="log-odds", prefix="new")[0], KINDS)
    linear, _ = fit(images, RUN, FAST, "mine")
    assert new.correlation(estimator) > 0.99 > 0.97 > new.correlation(linear)
    predicted, _, actual, _ = singles(synthetic(20, seed=9, link="log-odds", prefix="new")[0], estimator)
    assert float(torch.corrcoef(torch.stack([predicted, actual]))[0, 1]) > 0.99


def test_images_are_split_by_their_ids_alone_and_enough_are_left_to_calibrate():
    images, _ = synthetic(80)
    parts, again = split(images), split(images[::-1])
    assert {name: [one.id for one in part] for name, part in parts.items()} == {
        name: [one.id for one in part] for name, part in again.items()
    }
    assert sorted(one.id for part in parts.values() for one in part) == sorted(one.id for one in images)
    assert {name: len(part) for name, part in parts.items()} == {"scale": 13, "cover": 10, "fit": 57}
    assert {name: len(part) for name, part in split(images[:FEWEST_IMAGES]).items()} == {
        "scale": 4, "cover": 9, "fit": 11,
    }  # fmt: skip


def test_too_few_images_or_none_that_depends_on_the_image_are_refused():
    images, _ = synthetic(FEWEST_IMAGES, noise=0.01)
    fit(images, RUN, dataclasses.replace(FAST, steps=60), "mine")
    with pytest.raises(DataError, match=f"{FEWEST_IMAGES - 1} images are too few"):
        fit(images[1:], RUN, FAST, "mine")
    with pytest.raises(DataError, match="0 images are too few"):
        fit([], RUN, FAST, "mine")
    blind = [dataclasses.replace(one, token_falls=one.token_falls * 1e-6) for one in images]
    with pytest.raises(DataError, match="depends on the image"):
        fit(blind, RUN, FAST, "mine")


def test_weights_that_predict_the_opposite_in_other_images_are_refused():
    images, _ = synthetic(40)
    turning = {one.id for one in split(images)["scale"]}
    turned = [
        dataclasses.replace(one, token_falls=-one.token_falls) if one.id in turning else one for one in images
    ]
    with pytest.raises(DataError, match="do not predict"):
        fit(turned, RUN, FAST, "mine")


def test_a_feature_that_is_dead_in_the_data_gets_no_weight():
    images, _ = synthetic(40)
    for one in images:
        one.features[..., 3] = 0.0
    estimator, _ = fit(images, RUN, FAST, "mine")
    assert not estimator.weights[:, 3].any()
    assert estimator.weights.isfinite().all()


def test_fitting_again_gives_the_same_numbers_whatever_the_order_of_the_images():
    images, _ = synthetic(40, noise=0.1)
    torch.manual_seed(1)
    first, _ = fit(images, RUN, dataclasses.replace(NETWORK, steps=50), "mine")
    torch.manual_seed(2)
    second, _ = fit(images[::-1], RUN, dataclasses.replace(NETWORK, steps=50), "mine")
    assert torch.equal(first.weights, second.weights)
    assert first.network is not None
    assert second.network is not None
    assert torch.equal(first.network.outward, second.network.outward)
    assert torch.equal(first.effect_spread, second.effect_spread)
    assert torch.equal(first.contribution_spread, second.contribution_spread)
    assert first.card == second.card


def test_the_card_of_the_papers_link_tells_what_it_leaves_of_the_settings():
    images, _ = synthetic(80)
    estimator, _ = fit(
        images, RUN, dataclasses.replace(FAST, hidden=8, ranks=0.3, alone=0.4, steps=5), "mine"
    )
    assert estimator.card["fit"]["link"] == "identity"
    assert [estimator.card["fit"][name] for name in ("hidden", "tokens", "ranks", "alone", "across")] == [
        0
    ] * 5


def test_the_card_says_what_the_numbers_mean():
    images, _ = synthetic(80)
    estimator, _ = fit(images, RUN, dataclasses.replace(ODDS, steps=30), "mine")
    assert estimator.card["hiding"] == "pixels"
    assert estimator.card["fingerprint"] == "f"
    assert estimator.card["images"] == {"scale": 13, "cover": 10, "fit": 57}
    assert estimator.card["coverage"] == COVERAGE


def test_features_that_memory_does_not_hold_give_the_same_estimator(monkeypatch):
    images, _ = synthetic(40, seed=3, link="log-odds")
    settings = dataclasses.replace(NETWORK, steps=5)
    in_memory, _ = fit(images, RUN, settings, "one")
    monkeypatch.setattr("eyeline.training.large.IN_MEMORY", 0)
    on_disk, _ = fit(images, RUN, settings, "one")
    assert torch.equal(in_memory.weights, on_disk.weights)
    assert torch.equal(in_memory.network.inward, on_disk.network.inward)
