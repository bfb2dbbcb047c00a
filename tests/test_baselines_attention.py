import dataclasses
import functools
import itertools

import numpy as np
import pytest
import torch
from conftest import FAMILIES, SPREADS, build_tiny, picture
from slow_hiding import extended, trace_of

import eyeline.evaluation.baselines.attention_weights
import eyeline.evaluation.prediction as estimators
from eyeline.capture import AttentionCapture
from eyeline.estimator import SETS, Estimator, sum_spans
from eyeline.evaluation.baselines.attention_weights import (
    attention_rollout,
    each_layers_attention,
    raw_attention,
)
from eyeline.evaluation.prediction import Prediction, estimated, read_spans
from eyeline.examples import Example
from eyeline.features import KINDS
from eyeline.game import Game
from eyeline.generation import Written
from eyeline.reader import ReadSpan
from eyeline.regions import Regions
from eyeline.spans import Span
from eyeline.training.collect import Settings, collect_one

QUESTION = "How many?"
PICTURES = (picture(seed=1), picture(128, 96, seed=2))


def spans_of(*bounds):
    return [
        Span(at, "thinking", start, end, "text", False)
        for at, (start, end) in enumerate(itertools.pairwise(bounds))
    ]


def random_regions(model, inputs, count=4, seed=0):
    """Cells of any image in any region; the last region has no cell."""
    rng = torch.Generator().manual_seed(seed)
    grids = model.image_grids(inputs)
    labels = [torch.randint(count - 1, (grid.rows, grid.cols), generator=rng) for grid in grids]
    return Regions(tuple(labels), count)


def asked(model, images=2):
    """Inputs, trace, spans and regions of one question."""
    inputs, trace_ids = model.inputs(list(PICTURES[:images]), QUESTION), trace_of(model)
    spans = spans_of(0, 1, 6, len(trace_ids))
    return inputs, trace_ids, spans, random_regions(model, inputs)


@functools.cache
def eager_attention(family, images):
    """(layer, head, query, key), what transformers itself puts out."""
    model = build_tiny(family)
    model.hf.set_attn_implementation("eager")
    inputs, trace_ids, _, _ = asked(model, images)
    with torch.no_grad():
        output = model.hf(**extended(model, inputs, trace_ids), use_cache=False, output_attentions=True)
    return torch.stack(output.attentions)[:, 0].double().numpy()


def positions_of(inputs, model, regions):
    """The prompt positions of each region's visual tokens."""
    positions = (inputs["input_ids"][0] == model.adapter.image_token_id(model.hf)).nonzero()[:, 0].tolist()
    found = [[] for _ in range(regions.count)]
    for position, label in zip(positions, regions.of_patch.tolist(), strict=True):
        found[label].append(position)
    return found


@pytest.mark.parametrize("images", [1, 2])
def test_raw_attention_is_the_mean_of_the_eager_models_weights(tiny, images):
    inputs, trace_ids, spans, regions = asked(tiny, images)
    effects = raw_attention(tiny, inputs, trace_ids, spans, regions)
    weights = eager_attention(tiny.adapter.family, images)
    first = inputs["input_ids"].shape[1] - 1
    for number, span in enumerate(spans):
        for region, positions in enumerate(positions_of(inputs, tiny, regions)):
            rows = range(first + span.start, first + span.end)
            expected = sum(weights[:, :, row, column].mean() for row in rows for column in positions) / len(
                rows
            )
            assert effects[number, region].item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert effects[:, :3].std(dim=1).min() > 1e-3  # regions differ
    assert effects[:, 3].eq(0).all()  # a region without cells


@pytest.mark.parametrize("images", [1, 2])
def test_rollout_is_the_literal_product_of_all_layers_matrices(tiny, images):
    inputs, trace_ids, spans, regions = asked(tiny, images)
    effects = attention_rollout(tiny, inputs, trace_ids, spans, regions)
    weights = eager_attention(tiny.adapter.family, images)
    length = weights.shape[-1]
    joint = np.eye(length)
    for layer in weights:
        matrix = 0.5 * layer.mean(axis=0) + 0.5 * np.eye(length)
        matrix = matrix / matrix.sum(axis=1, keepdims=True)
        joint = matrix @ joint
    np.testing.assert_allclose(joint.sum(axis=1), 1)
    first = inputs["input_ids"].shape[1] - 1
    for number, span in enumerate(spans):
        row = joint[first + span.start : first + span.end].mean(axis=0)
        for region, positions in enumerate(positions_of(inputs, tiny, regions)):
            assert effects[number, region].item() == pytest.approx(row[positions].sum(), rel=1e-4, abs=1e-6)
    assert effects[:, :3].std(dim=1).min() > 1e-3


def test_rollout_differs_from_raw_attention_and_leaves_room_for_text():
    model = build_tiny("qwen3_vl")
    rolled, raw = attention_rollout(model, *asked(model)), raw_attention(model, *asked(model))
    assert (rolled / rolled.sum(1, keepdim=True) - raw / raw.sum(1, keepdim=True)).abs().max() > 1e-3
    assert rolled.sum(dim=1).max() < 1


def test_rollout_gives_the_model_its_attention_back(tiny):
    attentions = [tiny.adapter.self_attention(layer) for layer in tiny.adapter.layers(tiny.hf)]
    tower = tiny.hf.config.vision_config._attn_implementation
    attention_rollout(tiny, *asked(tiny))
    assert tiny.hf.config.text_config._attn_implementation == "sdpa"
    assert tiny.hf.config.vision_config._attn_implementation == tower
    assert not any(module._forward_hooks for module in attentions)


def test_rollout_gives_the_model_its_attention_back_after_an_error(tiny, monkeypatch):
    attentions = [tiny.adapter.self_attention(layer) for layer in tiny.adapter.layers(tiny.hf)]
    seen = []

    def broken(*_, **__):
        seen.append(tiny.hf.config.text_config._attn_implementation)
        seen.extend(len(module._forward_hooks) for module in attentions)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(eyeline.evaluation.baselines.attention_weights, "read", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        attention_rollout(tiny, *asked(tiny))
    assert seen == ["eager", *[1] * len(attentions)]
    assert tiny.hf.config.text_config._attn_implementation == "sdpa"
    assert not any(module._forward_hooks for module in attentions)


def test_a_hook_that_cannot_be_set_leaves_none_behind(monkeypatch):
    model = build_tiny("qwen3_vl")
    first, *_, last = [model.adapter.self_attention(layer) for layer in model.adapter.layers(model.hf)]
    monkeypatch.setattr(last, "register_forward_hook", None)
    with pytest.raises(TypeError), each_layers_attention(model, lambda _: None):
        pass
    assert model.hf.config.text_config._attn_implementation == "sdpa"
    assert not first._forward_hooks


@pytest.mark.parametrize("baseline", [raw_attention, attention_rollout])
def test_a_bfloat16_model_gives_float32_effects_near_its_own_in_float32(baseline):
    model = build_tiny("qwen3_vl")
    exact = baseline(model, *asked(model))
    model.hf.to(torch.bfloat16)
    effects = baseline(model, *asked(model))
    assert effects.dtype == torch.float32
    torch.testing.assert_close(effects, exact, rtol=0.1, atol=5e-3)


# --- estimators on features


def collected(model, monkeypatch, spans):
    """An example collected with a given trace."""
    ids = trace_of(model).tolist()
    monkeypatch.setattr("eyeline.training.collect.write", lambda *_: [Written(ids, spans, "")])
    return ids, collect_one(
        model,
        Example("one", PICTURES[1], QUESTION, "3", "math", "bars"),
        Settings(hiding="attention", subsets=2, kinds=KINDS),
    )


def estimator_of(features, kinds, link):
    weights = 30 * torch.randn(SETS[link], features.shape[-1], generator=torch.Generator().manual_seed(3))
    return Estimator("random", weights, *SPREADS, kinds, link, {"hiding": "attention"})


@pytest.mark.parametrize(
    ("kinds", "link"),
    [(KINDS, "log-odds"), (("attention",), "identity"), (("odds", "attention"), "log-odds")],
)
def test_an_estimator_predicts_from_the_collected_features(tiny, monkeypatch, kinds, link):
    spans = spans_of(0, 4, 9, len(trace_of(tiny)))
    ids, one = collected(tiny, monkeypatch, spans)
    regions = Regions(tuple(map(torch.tensor, one.labels)), one.features.shape[1])
    inputs = tiny.inputs(PICTURES[1], QUESTION)
    given = (tiny, inputs, torch.tensor(ids), spans, regions)
    read = read_spans(*given)
    torch.testing.assert_close(read.features, one.features.float(), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(read.log_odds, one.log_odds)
    parts = dict(zip(KINDS, read.features.chunk(len(KINDS), dim=-1), strict=True))
    features = torch.cat([parts[kind] for kind in kinds], dim=-1)
    estimator = estimator_of(features, kinds, link)
    found = estimated(estimator)(*given)
    game = estimator.game(features, read.log_odds)
    alone = sum_spans(game.falls(torch.eye(one.features.shape[1])), one.lengths)
    torch.testing.assert_close(found.effects, alone, rtol=1e-3, atol=1e-4)
    assert alone.std(dim=1).min() > 1e-3
    together = sum_spans(game.falls(one.subsets.float().T), one.lengths)
    torch.testing.assert_close(found.together(one.subsets), together, rtol=1e-3, atol=1e-4)
    added = alone @ one.subsets.float().T
    assert torch.allclose(together, added, rtol=1e-3, atol=1e-3) == (link == "identity")
    if link == "identity":  # sums come in the order of their parts
        for showing in (False, True):
            assert torch.equal(found.order(showing=showing).argsort(1), alone.argsort(1))


def test_layers_without_any_weight_are_not_captured(tiny, monkeypatch):
    given = (tiny, *asked(tiny))
    read = read_spans(*given)
    whole = estimator_of(read.features, KINDS, "log-odds")
    count = len(tiny.adapter.layers(tiny.hf))
    first_out = whole.weights.unflatten(-1, (len(KINDS), count, -1)).clone()
    first_out[:, :, 0] = 0
    sparse = dataclasses.replace(whole, weights=first_out.flatten(1))
    captured = []

    class Spy(AttentionCapture):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            captured.append(self.layers)

    monkeypatch.setattr(estimators, "AttentionCapture", Spy)
    found = estimated(sparse)(*given)
    assert captured == [tuple(range(1, count))]
    lengths = torch.tensor([span.end - span.start for span in given[3]])
    singly = torch.eye(given[4].count)
    expected = sum_spans(sparse.game(read.features, read.log_odds).falls(singly), lengths)
    torch.testing.assert_close(found.effects, expected, rtol=1e-3, atol=1e-4)
    assert expected.std(dim=1).min() > 1e-3


@pytest.mark.parametrize("showing", [False, True])
def test_each_region_does_most_to_the_predicted_drop_after_those_before_it(showing):
    """Of the first token the model is so sure that regions must be hidden together to change that."""
    apart = torch.tensor([[7.0, 0.0, 2.0], [0.0, 1.5, 3.0], [1.0, -1.0, 2.0]])
    game = Game(
        apart, torch.zeros(3, 0, 3), torch.zeros(3, 0), torch.zeros(3, 0), torch.tensor([6.0, -9.0, 0.0])
    )
    spans = [
        ReadSpan(None, game.of(*of), torch.zeros(3), torch.zeros(6), torch.zeros(1))
        for of in ((0, 2), (2, 3))
    ]
    order = Prediction(spans).order(showing=showing)

    for span, row in enumerate(order):
        falls = spans[span].game
        done = torch.zeros(3)
        assert sorted(row.tolist()) == [1, 2, 3]
        for region in row.argsort(descending=True):
            after = {}
            for other in (done == 0).nonzero()[:, 0].tolist():
                chosen = done + torch.eye(3)[other]
                after[other] = (
                    -float(falls(1 - chosen[:, None])) if showing else float(falls(chosen[:, None]))
                )
            assert max(after, key=lambda each: after[each]) == region
            done[region] = 1
    assert order[0].tolist() == ([1, 2, 3] if showing else [2, 1, 3])
    assert spans[0].game.alone().argsort(descending=True).tolist() == [2, 1, 0]


@pytest.mark.parametrize("family", FAMILIES)
def test_effects_can_be_used_in_autograd(family):
    model = build_tiny(family)
    weight = torch.ones((), requires_grad=True)
    for baseline in (raw_attention, attention_rollout):
        (baseline(model, *asked(model)) * weight).square().sum().backward()
    assert weight.grad.abs() > 0
