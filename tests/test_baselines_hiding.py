import itertools

import numpy as np
import pytest
import torch
from conftest import tiny_model
from test_baselines_attention import asked, spans_of

import eyeline.evaluation.baselines.hiding
from eyeline.ablation import Ablation, ablate
from eyeline.evaluation.baselines.hiding import ALPHAS, exhaustive, fit_falls, random_effects, regression
from eyeline.regions import Regions

PLANTED = torch.tensor(
    [[0.0, 1.5, 0.0, -0.7, 0.0, 3.0], [2.0, 0.0, 0.0, 0.0, -1.0, 0.0]]
)  # nats, (token, region)


@pytest.fixture
def additive(monkeypatch):
    """In place of the model: hiding a region lowers each token's log-prob by what is planted."""
    calls = []

    def ablate(model, inputs, trace_ids, hidden, method):
        calls.append((hidden, method))
        return Ablation(torch.zeros(2), hidden[:, ::2].float() @ PLANTED.T)

    monkeypatch.setattr(eyeline.evaluation.baselines.hiding, "ablate", ablate)
    cells = torch.arange(6).repeat_interleave(2).view(3, 4)  # two cells a region
    given = (tiny_model("qwen3_vl"), {}, torch.tensor([5, 7]), spans_of(0, 1, 2), Regions((cells,), 6))
    return given, calls


@pytest.mark.parametrize("method", ["pixels", "attention"])
def test_exhaustive_effects_are_those_of_hiding_each_region_by_itself(tiny, method):
    inputs, trace_ids, spans, regions = asked(tiny)
    effects = exhaustive(tiny, inputs, trace_ids, spans, regions, method=method)
    labels = regions.of_patch.tolist()
    for region in range(regions.count):
        hidden = torch.tensor([[label == region for label in labels]])
        falls = ablate(tiny, inputs, trace_ids, hidden, method).falls[0]
        for number, span in enumerate(spans):
            expected = sum(falls[token].item() for token in range(span.start, span.end))
            assert effects[number, region].item() == pytest.approx(expected, abs=1e-4)
    assert effects[:, :3].abs().min() > 1e-3
    assert effects[:, 3].abs().max() < 1e-4  # a region without cells


def test_regression_recovers_planted_additive_effects_up_to_the_penaltys_shrinkage(additive):
    given, _ = additive
    effects = regression(1024)(*given)
    # on independent halves, standardised coefficients shrink by alpha: 0.01 / 0.5 in nats for a token
    torch.testing.assert_close(effects, PLANTED, rtol=0, atol=0.025)
    assert ((PLANTED.abs() - effects.abs())[PLANTED != 0] > 0.01).all()
    assert effects[PLANTED == 0].abs().max() < 2e-3
    torch.testing.assert_close(
        regression(64, penalty="ridge", alpha=1e-6)(*given), PLANTED, rtol=0, atol=1e-4
    )
    assert not torch.allclose(regression(64, alpha=10.0)(*given), PLANTED, atol=0.5)


def test_regression_hides_whole_regions_at_its_rate_by_its_method(additive):
    given, calls = additive
    regression(256, rate=0.25, method="attention")(*given)
    regression(32)(*given)
    (hidden, method), (other, default) = calls
    assert (method, default) == ("attention", "pixels")
    assert hidden.shape == (256, 12)
    assert other.shape == (32, 12)
    assert torch.equal(hidden[:, ::2], hidden[:, 1::2])  # both cells of a region
    assert hidden.float().mean() == pytest.approx(0.25, abs=0.03)
    assert other.float().mean() == pytest.approx(0.5, abs=0.1)


def test_subsets_depend_on_the_seed_and_the_trace_alone(additive):
    (model, inputs, trace_ids, spans, regions), calls = additive
    for seed, trace in ((0, trace_ids), (0, trace_ids.clone()), (1, trace_ids), (0, trace_ids + 1)):
        torch.rand(3)  # the global generator does not matter
        regression(32, seed=seed)(model, inputs, trace, spans, regions)
    first, again, other_seed, other_trace = (hidden for hidden, _ in calls)
    assert torch.equal(first, again)
    assert not torch.equal(first, other_seed)
    assert not torch.equal(first, other_trace)


def test_regression_on_a_model_is_deterministic_in_its_seed(tiny):
    given = (tiny, *asked(tiny))
    effects = regression(16)(*given)
    assert torch.equal(effects, regression(16)(*given))
    assert not torch.equal(effects, regression(16, seed=1)(*given))
    assert effects[:, :3].abs().max() > 0.01
    assert effects[:, 3].abs().max() < 0.5 * effects[:, :3].abs().max()  # a region without cells does nothing


def test_ridge_without_penalty_on_all_subsets_is_exact_least_squares():
    rng = np.random.default_rng(0)
    subsets = np.array(list(itertools.product([False, True], repeat=5)))
    falls, lengths = rng.normal(size=(3, 32)), torch.tensor([1, 4, 9])
    found = fit_falls(torch.tensor(subsets), torch.tensor(falls).float(), lengths, "ridge", 1e-9)
    design = np.column_stack([subsets.astype(float), np.ones(32)])
    for row, weights in zip(falls, found.numpy(), strict=True):
        expected = np.linalg.lstsq(design, row, rcond=None)[0][:-1]
        np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-5)


def test_the_lasso_meets_the_optimality_conditions_of_contextcites_objective():
    rng = np.random.default_rng(1)
    subsets = rng.random((40, 12)) < 0.5
    lengths, truth = torch.tensor([2, 7]), np.where(np.arange(12) < [[3], [6]], rng.normal(size=(2, 12)), 0)
    falls = truth @ subsets.T + rng.normal(size=(2, 40)) * 0.05
    found = fit_falls(torch.tensor(subsets), torch.tensor(falls).float(), lengths).double().numpy()
    assert ALPHAS["lasso"] == 0.01
    columns = (subsets - subsets.mean(0)) / subsets.std(0)
    for row, length, weights in zip(falls, lengths.tolist(), found, strict=True):
        standard = weights * subsets.std(0) / length
        residual = row / length - (row / length).mean() - columns @ standard
        gradient = columns.T @ residual / 40
        used = standard != 0
        assert 0 < used.sum() < 12
        np.testing.assert_allclose(gradient[used], 0.01 * np.sign(standard[used]), atol=2e-4)
        assert np.abs(gradient[~used]).max() <= 0.01 + 2e-4


def test_a_region_that_is_never_hidden_gets_no_effect():
    subsets = torch.tensor([[True, False], [False, False], [True, False], [False, False]])
    falls = torch.tensor([[2.0, 0.0, 2.0, 0.0]])
    for penalty in ("lasso", "ridge"):
        found = fit_falls(subsets, falls, torch.tensor([1]), penalty, 1e-6)
        torch.testing.assert_close(found, torch.tensor([[2.0, 0.0]]), rtol=0, atol=1e-4)


def test_random_effects_are_noise_that_comes_again_with_the_same_trace():
    model = tiny_model("qwen3_vl")
    inputs, trace_ids, _, regions = asked(model)
    spans = spans_of(*range(13))
    effects = random_effects(model, inputs, trace_ids, spans, regions)
    assert effects.shape == (12, regions.count)
    assert 0.7 < effects.std() < 1.3
    assert torch.equal(effects, random_effects(model, inputs, trace_ids.clone(), spans, regions))
    assert not torch.equal(effects, random_effects(model, inputs, trace_ids.flip(0), spans, regions))
