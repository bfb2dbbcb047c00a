"""Features of the heads as a set: held to loops, the same for heads in any order, in no model's unit."""

import pytest
import torch

from eyeline.head_set import KINDS, SET, as_set, is_set, of_heads

TOKENS, REGIONS, HEADS = 3, 5, 6


@pytest.fixture
def features():
    rng = torch.Generator().manual_seed(0)
    found = torch.randn(TOKENS, REGIONS, len(KINDS), HEADS, generator=rng)
    found[:, :, :2] = found[:, :, :2].abs()  # attention, and the sizes of values
    return found


def columns(features):
    return dict(zip(SET, as_set(features.flatten(2)).unbind(2), strict=True))


def test_each_is_what_a_loop_over_heads_gives(features):
    found = columns(features)
    for token in range(TOKENS):
        attention, value, odds, change = features[token].unbind(1)
        looks = float(sum(attention[k, h] for k in range(REGIONS) for h in range(HEADS))) / HEADS
        written = float(value.sum())
        for k in range(REGIONS):
            heads = range(HEADS)
            expected = {
                "odds_sum": sum(odds[k, h] for h in heads),
                "odds_for": sum(max(odds[k, h], torch.tensor(0.0)) for h in heads),
                "change_sum": sum(change[k, h] for h in heads),
                "change_for": sum(max(change[k, h], torch.tensor(0.0)) for h in heads),
                "change_most": max(change[k, h] for h in heads),
                "value_share": sum(value[k, h] / value[:, h].sum() for h in heads) / HEADS,
                "value_mean": looks * sum(value[k, h] for h in heads) / written,
                "value_seen": looks * sum(value[k, h] * attention[k, h] for h in heads) / written,
            }
            for name, value_of in expected.items():
                assert float(found[name][token, k]) == pytest.approx(float(value_of), rel=1e-4), name


def test_heads_in_another_order_give_the_same(features):
    turned = features[..., torch.randperm(HEADS, generator=torch.Generator().manual_seed(1))]
    assert torch.allclose(as_set(turned.flatten(2)), as_set(features.flatten(2)), atol=1e-5)


def test_values_of_another_size_give_the_same(features):
    scaled = features.clone()
    scaled[:, :, KINDS.index("value")] *= 1000
    assert torch.allclose(as_set(scaled.flatten(2)), as_set(features.flatten(2)), atol=1e-5)


def test_a_token_that_looks_nowhere_has_zeros():
    assert (as_set(torch.zeros(1, REGIONS, len(KINDS) * HEADS)) == 0).all()


def test_kinds_are_of_a_set_or_of_heads():
    assert is_set(SET)
    assert not is_set(("odds", "change"))
    assert not is_set(())
    assert of_heads(SET) == KINDS
    assert of_heads(("change", "odds")) == ("change", "odds")
