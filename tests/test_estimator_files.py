import dataclasses
import json
import shutil

import pytest
import torch
from conftest import SPREADS, build_tiny, tiny_model
from safetensors.torch import load_file, save_file
from streams import random_estimator

from eyeline.errors import EstimatorError
from eyeline.estimator import OF_NETWORK
from eyeline.estimator_files import check_model, digest, estimator_for, read_estimator, save_estimator
from eyeline.features import KINDS
from eyeline.fingerprint import is_quantised

FEATURES = 3 * 4 * len(KINDS)  # of the tiny models


def estimator_of(model, **changes):
    return dataclasses.replace(random_estimator(model, hiding="pixels", coverage=0.9), id="mine", **changes)


@pytest.fixture
def saved(tmp_path):
    model = tiny_model("qwen3_vl")
    save_estimator(estimator_of(model), tmp_path / "estimator")
    return model, tmp_path / "estimator"


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


def test_the_estimator_in_the_models_own_folder_is_the_default_and_the_general_one_where_there_is_none(
    tmp_path,
):
    model = tiny_model("qwen3_vl")
    named = dataclasses.replace(model, name=str(tmp_path))
    for without in (model, named):
        general = estimator_for(without)
        assert (general.id, general.level, general.unit) == ("general", "none", "relative")
        assert not general.has_intervals
    save_estimator(estimator_of(model), tmp_path / "estimator")
    assert estimator_for(named).id == "mine"
    assert estimator_for(model).id == "general"
    assert estimator_for(named, "attention") is None


def test_an_estimator_can_come_from_the_hub_but_a_folder_of_that_name_goes_first(
    saved, tmp_path, monkeypatch
):
    model, folder = saved
    asked = []

    def download(repository, *, allow_patterns, revision, token):
        asked.append((repository, sorted(allow_patterns), revision, token))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert estimator_for(model, "someone/estimator-for-tiny").id == "mine"
    assert asked == [("someone/estimator-for-tiny", ["card.json", "estimator.safetensors"], None, None)]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, tmp_path / "someone" / "here")
    assert estimator_for(model, "someone/here").id == "mine"
    assert len(asked) == 1


def test_an_estimator_that_the_hub_does_not_give_is_refused_with_one_sentence(saved, monkeypatch):
    def download(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(EstimatorError, match=r"neither a folder here nor .* the Hub cannot be reached"):
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
