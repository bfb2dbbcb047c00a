"""General weights and calibration, on collections of no model whose scores are linear in the features of heads as a set."""

from dataclasses import replace

import pytest
import torch
from test_traces import traced

from eyeline.errors import DataError
from eyeline.estimator import SETS, Estimator, interval
from eyeline.head_set import SET
from eyeline.training import calibrate as module
from eyeline.training.calibrate import calibrate
from eyeline.training.collect import Collected, Settings, draw_subsets
from eyeline.training.fit import effect_pairs
from eyeline.training.general_weights import learn_general
from eyeline.training.weights import UNKNOWN

RUN = {
    "version": "0", "model": "some/where/synthetic", "fingerprint": "f" * 64,
    "settings": {"kinds": list(SET), "hiding": "pixels", "regions": "native"},
}  # fmt: skip
TRUTH = torch.tensor([[0.2, 0.0, 0.5, 1.0, 0.3, 0.0, 0.4, 0.0], [0.0, 0.3, 0.0, 2.0, 0.0, 0.0, 0.0, 1.0]])


def images(count, truth=TRUTH, size=1.0, noise=0.0, seed=0):
    """Spans of two tokens; falls are of scores that are `truth` times the features, times `size`."""
    rng, found = torch.Generator().manual_seed(seed), []
    for number in range(count):
        name, regions = f"{seed}-{number}", int(torch.randint(6, 10, (1,), generator=rng))
        subsets, rates = draw_subsets(regions, Settings(subsets=12), name)
        features = torch.randn(8, regions, len(SET), generator=rng).abs()
        features = features * (torch.rand(8, regions, 1, generator=rng) < 0.4)
        log_odds = 2 * torch.randn(8, generator=rng) + 3
        true = Estimator("", truth * size, UNKNOWN, UNKNOWN, SET)
        falls = true.game(features, log_odds).falls(subsets.float().T)
        falls = falls + noise * torch.randn(falls.shape, generator=rng)
        spans = tuple({"start": at, "end": at + 2} for at in range(0, 8, 2))
        found.append(
            Collected(name, "math", "3", spans, features.half(), log_odds, subsets, rates, falls, None, ())
        )
    return found


@pytest.fixture(scope="module")
def general():
    return learn_general([(images(24), RUN), (images(30, size=3.0, seed=1), RUN)], "general")


def calibrated(few, general):
    *_, (_, found) = calibrate([[one] for one in few], RUN, general, "mine")
    return found


def test_general_weights_belong_to_no_model(general):
    assert general.level == "none"
    assert general.unit == "relative"
    assert not general.has_intervals
    assert "fingerprint" not in general.card
    assert general.card["models"] == ["synthetic (ffffffffffff)"] * 2
    assert general.card["images"] == {"general": 48}


def test_general_weights_know_earlier_text_of_several_models_and_calibration_keeps_it():
    changes = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0])
    of_two = [
        [replace(traced(seed), changes=changes) for seed in seeds] for seeds in (range(15), range(100, 112))
    ]
    general = learn_general([(images(24), RUN)], "general", of_two)
    assert general.text is not None
    assert general.chances is not None
    assert general.card["traces"] == 24  # as many of each
    found = calibrated(images(10, seed=8), general)
    assert found.chances == general.chances
    assert torch.equal(found.text, general.text)


def test_general_weights_rank_regions_of_another_model(general):
    predicted, actual, _ = effect_pairs(images(10, size=2.0, seed=7), general)
    assert float(torch.corrcoef(torch.stack([predicted, actual]))[0, 1]) > 0.9


def test_few_images_tell_sizes_and_intervals(general):
    held_out = images(20, size=2.5, noise=0.1, seed=9)
    found = calibrated(images(10, size=2.5, noise=0.1, seed=8), general)
    assert (found.level, found.unit, found.id) == ("calibrated", "nats", "mine")
    predicted, actual, _ = effect_pairs(held_out, found)
    before, _, _ = effect_pairs(held_out, general)
    assert float((predicted - actual).square().mean()) < 0.5 * float((before - actual).square().mean())
    low, high = interval(predicted, found.effect_spread).T
    assert float(((low <= actual) & (actual <= high)).float().mean()) > 0.8


def test_too_few_images_give_no_intervals(general):
    found = calibrated(images(4, seed=5), general)
    assert found.card["coverage"] is None
    assert not found.has_intervals


def test_less_than_three_images_are_refused(general):
    with pytest.raises(DataError, match="2 images are too few to calibrate"):
        list(calibrate([[one] for one in images(2)], RUN, general, "mine"))


def test_weights_move_the_further_the_more_images_there_are(general):
    """Towards what another model does, of which only one feature counts."""
    other = torch.zeros(SETS["log-odds"], len(SET))
    other[:, 0] = 2.0
    moved = []
    for count in (3, 30):
        data = module.training_data(images(count, truth=other, seed=4), SET)
        found = module.move(data, count, general)
        moved.append(float((found.weights - general.weights).square().sum()))
    assert moved[1] > 2 * moved[0] > 0


def test_the_level_with_the_better_held_out_lds_wins(general, monkeypatch):
    values = iter([0.7, 0.6])
    monkeypatch.setattr(module, "_held_out", lambda *_: next(values))
    few = images(5, seed=3)
    found = calibrated(few, general)
    assert found.card["lds_by_level"] == {"general": 0.7, "calibrated": 0.6}
    assert found.card["lds_held_out"] == 0.7
    ratio = found.weights / general.weights  # no weight was moved: each set by a factor of its own
    assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-3)


def test_collections_that_hide_otherwise_are_refused_together():
    other = {**RUN, "settings": {**RUN["settings"], "hiding": "attention"}}
    with pytest.raises(DataError, match="attention and pixels; expected one way"):
        learn_general([(images(24), RUN), (images(24), other)], "general")
    with pytest.raises(DataError, match="10 images of a model are too few"):
        learn_general([(images(24), RUN), (images(10), RUN)], "general")
