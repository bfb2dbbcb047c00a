import dataclasses
import json
import math
import shutil

import pytest
import torch
from conftest import SPREADS, build_tiny, picture, tiny_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from eyeline import load
from eyeline.capture import AttentionCapture
from eyeline.errors import EstimatorError
from eyeline.estimator import (
    OF_NETWORK,
    SURE,
    WIDTH,
    Estimator,
    Network,
    check_model,
    compress,
    digest,
    estimator_for,
    fingerprint,
    interval,
    is_quantised,
    read_estimator,
    save_estimator,
)
from eyeline.features import KINDS
from eyeline.game import fall

FEATURES = 3 * 4 * len(KINDS)  # of the tiny models


def logged(values):
    return values.sign() * torch.log1p(values.abs())


def silu(value):
    return value / (1 + math.exp(-value))


def estimator_of(model, **changes):
    rng = torch.Generator().manual_seed(0)
    weights = torch.randn(2, FEATURES, generator=rng)
    card = {"model": model.name, "fingerprint": fingerprint(model), "hiding": "pixels", "coverage": 0.9}
    shapes = (FEATURES,), (3, FEATURES), (3, FEATURES), (2, 3), (2, 3)
    network = Network(*(torch.randn(*shape, generator=rng) for shape in shapes))
    return dataclasses.replace(
        Estimator("mine", weights, *SPREADS, KINDS, card=card, network=network), **changes
    )


@pytest.fixture
def saved(tmp_path):
    model = tiny_model("qwen3_vl")
    save_estimator(estimator_of(model), tmp_path / "estimator")
    return model, tmp_path / "estimator"


# --- fingerprints


def test_the_fingerprint_survives_saving_in_bfloat16_and_loading_in_float32(tiny, tmp_path):
    half = build_tiny(tiny.adapter.family)
    half.hf.to(torch.bfloat16).save_pretrained(tmp_path)
    processors = (tiny.tokenizer, tiny.image_processor)
    assert fingerprint(half) == fingerprint(tiny)
    for dtype in (torch.float32, torch.bfloat16):
        again = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=dtype)
        assert again.dtype == dtype
        assert fingerprint(load((again, processors))) == fingerprint(tiny)


def test_the_fingerprint_does_not_depend_on_the_attention_kernel_or_on_a_capture(tiny):
    expected = fingerprint(tiny)
    model = build_tiny(tiny.adapter.family)
    model.hf.set_attn_implementation("eager")
    assert fingerprint(model) == expected
    with AttentionCapture(tiny, tiny.inputs(picture(), "How many?")):
        assert fingerprint(tiny) == expected
    list(tiny.stream(picture(), "How many?", max_new_tokens=2))
    assert fingerprint(tiny) == expected


def test_other_weights_or_another_configuration_have_another_fingerprint(tiny):
    family = tiny.adapter.family
    theta = build_tiny(family)
    theta.hf.config.text_config.rope_parameters["rope_theta"] = 2e4
    trained = build_tiny(family)
    with torch.no_grad():
        for weight in trained.hf.parameters():
            weight.mul_(1.01)
    others = [build_tiny(family, seed=1), build_tiny(family, rms_norm_eps=1e-3), theta, trained]
    assert len({fingerprint(model) for model in [tiny, *others]}) == 5


# --- folders


def test_an_estimator_that_is_saved_and_read_is_the_same(saved):
    model, folder = saved
    before, after = estimator_of(model), read_estimator(folder)
    assert torch.equal(after.weights, before.weights)
    assert torch.equal(after.effect_spread, before.effect_spread)
    assert before.network is not None
    assert after.network is not None
    for name in OF_NETWORK:
        assert torch.equal(getattr(after.network, name), getattr(before.network, name))
    assert digest(after) == digest(before)
    assert digest(dataclasses.replace(after, network=None)) != digest(before)
    assert torch.equal(after.contribution_spread, before.contribution_spread)
    assert (after.id, after.kinds, after.link) == (before.id, before.kinds, before.link)
    assert before.card.items() <= after.card.items()
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "estimator.safetensors"]
    save_estimator(after, folder)
    assert read_estimator(folder).card == after.card
    save_estimator(dataclasses.replace(before, network=None), folder)
    assert read_estimator(folder).network is None


def test_intervals_lie_around_values_between_the_knots_of_a_spread_and_beyond_them_as_at_the_last():
    spread = torch.tensor([[-1.0, -0.5, 0.5], [0.0, -0.25, 0.25], [2.0, -1.0, 3.0]])
    values = torch.tensor([-1.0, 0.0, 2.0, 1.0, 4.0, -3.0])
    ends = [[-1.5, -0.5], [-0.25, 0.25], [1.0, 5.0], [0.375, 2.625], [3.0, 7.0], [-3.5, -2.5]]
    assert interval(values, spread).tolist() == ends


def test_a_fall_of_log_odds_lowers_the_log_prob_by_what_it_leaves_of_it():
    log_prob = torch.tensor([-0.01, -0.7, -5.0]).double()
    odds = log_prob - torch.log1p(-log_prob.exp())
    scores = torch.linspace(-3, 9, 7).double().repeat(3, 1)
    expected = log_prob[:, None] - torch.nn.functional.logsigmoid(odds[:, None] - scores)
    torch.testing.assert_close(fall(scores, odds), expected)
    torch.testing.assert_close(fall(scores[:, 0], odds), expected[:, 0])
    assert fall(torch.zeros(3), odds.float()).abs().max() < 1e-6


def test_tokens_that_the_model_is_sure_of_have_weights_of_their_own():
    estimator = estimator_of(tiny_model("qwen3_vl"), network=None)
    odds = torch.tensor([-20.0, SURE, SURE + WIDTH, 40.0])
    doubted, sure = estimator.weights
    share = 1 / (1 + math.exp(-1))
    expected = [doubted, (doubted + sure) / 2, (1 - share) * doubted + share * sure, sure]
    torch.testing.assert_close(estimator.of_tokens(odds), torch.stack(expected))
    features = torch.randn(4, 3, FEATURES, generator=torch.Generator().manual_seed(2))
    scores = torch.stack([part @ weights for part, weights in zip(features, expected, strict=True)])
    torch.testing.assert_close(estimator.game(features, odds).scores(torch.eye(3)), scores)
    linear = dataclasses.replace(estimator, weights=doubted[None], link="identity").game(features, odds)
    torch.testing.assert_close(linear.scores(torch.eye(3)), features @ doubted)
    two = torch.tensor([[1.0], [0.0], [1.0]])
    torch.testing.assert_close(linear.scores(two)[:, 0], features[:, [0, 2]].sum(1) @ doubted)


def test_a_network_adds_what_it_sees_in_hidden_regions_and_the_image_and_nothing_for_empty_ones():
    estimator = estimator_of(tiny_model("qwen3_vl"))
    network = estimator.network
    assert network is not None
    features = 3 * torch.randn(2, 4, FEATURES, generator=torch.Generator().manual_seed(2))
    features[:, 2] = 0
    odds = torch.tensor([-20.0, 40.0])  # doubted, sure
    hidden = [[0], [1], [2], [0, 1], [0, 1, 2, 3], [1, 3], []]
    subsets = torch.tensor([[float(region in each) for each in hidden] for region in range(4)])
    linear = dataclasses.replace(estimator, network=None).game(features, odds).scores(subsets)
    game = estimator.game(features, odds)
    added = game.scores(subsets) - linear

    def unit_of(number, token, regions):
        """What one hidden unit says of regions that it sees as one."""
        image = features[token].sum(0) * network.unit
        context = float(network.context[number] @ logged(image) + network.bias[token, number])
        own = sum(
            float(network.inward[number] @ logged(features[token, region] * network.unit))
            for region in regions
        )
        return silu(own + context) - silu(context)

    for token in (0, 1):
        for subset, regions in enumerate(hidden):
            apart = [sum(unit_of(number, token, [region]) for region in regions) for number in (0, 1)]
            units = torch.tensor(
                [*apart, unit_of(2, token, regions)]
            )  # of three units, the last sees them together
            assert float(added[token, subset]) == pytest.approx(
                float(units @ network.outward[token]), rel=1e-4, abs=1e-3
            )
    assert game.scores(subsets)[:, [2, 6]].tolist() == [[0, 0], [0, 0]]
    assert not torch.allclose(added[:, 3], added[:, 0] + added[:, 1], atol=0.01)
    of_each = subsets.expand(2, -1, -1)  # as if each token had subsets of its own
    torch.testing.assert_close(game.scores(of_each), linear + added)
    seen = compress(features, network.unit)
    torch.testing.assert_close(estimator.game(features, odds, seen).scores(subsets), linear + added)


def test_the_layers_of_an_estimator_are_those_with_any_weight_and_at_least_one():
    whole = estimator_of(tiny_model("qwen3_vl"))
    assert whole.network is not None
    assert whole.layers(3) == [0, 1, 2]
    assert whole.of_layers([0, 1, 2], 3) is whole
    zero = Network(
        whole.network.unit, *(torch.zeros_like(getattr(whole.network, name)) for name in OF_NETWORK[1:])
    )
    nothing = dataclasses.replace(whole, weights=torch.zeros(2, FEATURES), network=zero)
    assert nothing.layers(3) == [0]
    assert dataclasses.replace(nothing, network=None).layers(3) == [0]
    for column in range(FEATURES):  # kind-major, then layer-major, four heads a layer
        expected = [column % 12 // 4]
        here = torch.arange(FEATURES) == column
        linear = dataclasses.replace(nothing, weights=-1.0 * here.repeat(2, 1), network=None)
        assert linear.layers(3) == expected
        for name in ("inward", "context"):
            one = dataclasses.replace(zero, **{name: here.repeat(3, 1).float()})
            assert dataclasses.replace(nothing, network=one).layers(3) == expected
            dead = dataclasses.replace(one, unit=(~here).float())
            assert dataclasses.replace(nothing, network=dead).layers(3) == [0]


@pytest.mark.parametrize("layers", [[1], [0, 2]])
def test_with_some_layers_an_estimator_scores_their_features_as_it_would_where_others_are_zero(layers):
    whole = estimator_of(tiny_model("qwen3_vl"))
    some = whole.of_layers(layers, 3)
    assert (some.id, some.kinds, some.link, some.card) == (whole.id, whole.kinds, whole.link, whole.card)
    features = 3 * torch.randn(4, 5, len(KINDS), 3, 4, generator=torch.Generator().manual_seed(2))
    odds, subsets = torch.tensor([-20.0, 0.0, 5.0, 40.0]), torch.tensor([[1.0, 1, 0], [0, 1, 0], [0, 1, 1]])
    subsets = torch.nn.functional.pad(subsets, (0, 0, 0, 2))
    alone = torch.zeros_like(features)
    alone[..., layers, :] = features[..., layers, :]
    torch.testing.assert_close(
        some.game(features[..., layers, :].flatten(2), odds).scores(subsets),
        whole.game(alone.flatten(2), odds).scores(subsets),
    )
    assert some.weights.shape == (2, len(KINDS) * len(layers) * 4)


def test_a_game_has_the_log_odds_of_its_tokens_and_with_the_identity_none():
    estimator = estimator_of(tiny_model("qwen3_vl"), network=None)
    features, odds = torch.randn(3, 2, FEATURES), torch.tensor([0.0, 4.0, -2.0])
    game, subsets = estimator.game(features, odds), torch.eye(2)
    torch.testing.assert_close(game.falls(subsets), fall(game.scores(subsets), odds))
    linear = dataclasses.replace(estimator, link="identity").game(features, odds)
    torch.testing.assert_close(linear.falls(subsets), linear.scores(subsets))


def change(folder, **changes):
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | changes))


def drop(folder, key):
    card = json.loads((folder / "card.json").read_text())
    del card[key]
    (folder / "card.json").write_text(json.dumps(card))


def swap(folder, **tensors):
    """Another tensor in an estimator's file, or none."""
    path = folder / "estimator.safetensors"
    changed = {
        name: tensor.contiguous()
        for name, tensor in (load_file(path) | tensors).items()
        if tensor is not None
    }
    save_file(changed, path)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    "damage",
    [
        shutil.rmtree,
        lambda folder: (folder / "card.json").unlink(),
        lambda folder: (folder / "estimator.safetensors").unlink(),
        lambda folder: (folder / "card.json").write_text('{"format": 4,'),
        lambda folder: (folder / "card.json").write_text("[1]"),
        lambda folder: (folder / "card.json").write_bytes(b"\xff\xfe\x00"),
        lambda folder: (folder / "estimator.safetensors").write_bytes(b""),
        lambda folder: (folder / "estimator.safetensors").write_text("pickle" * 9),
        lambda folder: truncate(folder / "estimator.safetensors"),
        lambda folder: change(folder, format=1),
        lambda folder: change(folder, kinds=["attention", "gaze"]),
        lambda folder: change(folder, kinds=[]),
        lambda folder: change(folder, kinds=3),
        lambda folder: drop(folder, "kinds"),
        lambda folder: drop(folder, "link"),
        lambda folder: change(folder, link="logit"),
        lambda folder: swap(folder, weights=None),
        lambda folder: swap(folder, effect_spread=None),
        lambda folder: swap(folder, contribution_spread=torch.ones(2)),
        lambda folder: swap(folder, weights=torch.ones(FEATURES)),
        lambda folder: swap(folder, weights=torch.ones(1, FEATURES)),
        lambda folder: change(folder, link="identity"),
        lambda folder: swap(folder, **{"network.bias": None}),
        lambda folder: swap(folder, **{"network.context": torch.ones(2, FEATURES)}),
        lambda folder: swap(folder, **{"network.unit": torch.ones(FEATURES - 1)}),
        lambda folder: swap(folder, effect_spread=SPREADS[0][:1]),
        lambda folder: swap(folder, effect_spread=SPREADS[0][:, :2]),
        lambda folder: swap(folder, contribution_spread=SPREADS[0].flip(0)),
        lambda folder: swap(folder, effect_spread=SPREADS[0][:, [0, 2, 1]]),
    ],
)
def test_a_broken_or_missing_folder_is_refused_with_one_sentence(saved, damage):
    model, folder = saved
    damage(folder)
    for read in (read_estimator, lambda path: estimator_for(model, path)):
        with pytest.raises(EstimatorError) as caught:
            read(folder)
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("{}")
    with pytest.raises(EstimatorError, match="is not an estimator"):
        read_estimator(tmp_path / "file")


# --- which model it belongs to


def test_the_estimator_in_the_models_own_folder_is_the_default(tmp_path):
    model = tiny_model("qwen3_vl")
    assert estimator_for(model) is None
    named = dataclasses.replace(model, name=str(tmp_path))
    assert estimator_for(named) is None
    save_estimator(estimator_of(model), tmp_path / "estimator")
    assert estimator_for(named).id == "mine"


def test_an_estimator_can_come_from_the_hub_but_a_folder_of_that_name_goes_first(
    saved, tmp_path, monkeypatch
):
    model, folder = saved
    asked = []

    def download(repository, *, allow_patterns):
        asked.append((repository, sorted(allow_patterns)))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert estimator_for(model, "someone/estimator-for-tiny").id == "mine"
    assert asked == [("someone/estimator-for-tiny", ["card.json", "estimator.safetensors"])]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, tmp_path / "someone" / "here")
    assert estimator_for(model, "someone/here").id == "mine"
    assert len(asked) == 1


def test_an_estimator_that_the_hub_does_not_give_is_refused_with_one_sentence(saved, monkeypatch):
    def download(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(EstimatorError, match=r"neither a folder here nor .* \(ConnectionError\)"):
        estimator_for(saved[0], "someone/estimator")


def test_another_model_and_another_number_of_weights_are_refused(saved):
    model, folder = saved
    assert estimator_for(model, folder).id == "mine"
    with pytest.raises(EstimatorError, match="was fitted for"):
        estimator_for(build_tiny("qwen3_vl", seed=1), folder)
    with pytest.raises(EstimatorError, match="was fitted for"):
        check_model(estimator_of(model, card={}), model)
    with pytest.raises(EstimatorError, match=f"{FEATURES} features"):
        check_model(estimator_of(model, weights=torch.zeros(2, FEATURES - 1)), model)
    with pytest.raises(EstimatorError, match="12 features"):
        check_model(estimator_of(model, kinds=("attention",)), model)


def test_a_quantised_model_is_accepted_unless_the_number_of_weights_is_wrong():
    model = build_tiny("qwen3_vl", seed=1)
    estimator = estimator_of(tiny_model("qwen3_vl"))
    with pytest.raises(EstimatorError):
        check_model(estimator, model)
    model.hf.config.quantization_config = {"quant_method": "bitsandbytes"}
    assert is_quantised(model)
    check_model(estimator, model)
    with pytest.raises(EstimatorError, match="features"):
        check_model(dataclasses.replace(estimator, weights=torch.zeros(2, 3)), model)
