"""Estimators that a user keeps, and estimators on the Hub, by its own client and a server that speaks its API."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml
from command import ROOT, ask, refuse, succeed
from conftest import build_tiny, fill, tiny_model
from hub_server import TOKEN
from streams import random_estimator

import eyeline
from eyeline.errors import DataError, EstimatorError
from eyeline.estimator_files import digest, estimator_for, read_estimator, save_estimator
from eyeline.estimator_store import export, find_kept, keep, kept, remove


def dated(model, name, created, **card):
    one = random_estimator(model, created=created, images={"fit": 30, "cover": 9}, **card)
    return dataclasses.replace(one, id=name)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EYELINE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def shared():
    one = random_estimator(tiny_model("qwen3_vl"), lds_held_out=0.71, coverage=0.9)
    return eyeline.Estimator(**(vars(one) | {"card": {**one.card, "model": "owner/tiny"}}))


# --- kept here


def test_the_newest_that_is_kept_for_a_models_weights_is_used_before_the_one_in_its_folder(home, tmp_path):
    model = dataclasses.replace(tiny_model("qwen3_vl"), name=str(tmp_path / "model"))
    save_estimator(dated(model, "shipped", "2026-01-01"), tmp_path / "model" / "estimator")
    assert estimator_for(model).id == "shipped"
    keep(dated(model, "newer", "2026-03-01"))
    keep(dated(model, "older", "2026-02-01"))
    assert estimator_for(model).id == "newer"
    assert estimator_for(model, tmp_path / "model" / "estimator").id == "shipped"
    assert estimator_for(build_tiny("qwen3_vl", seed=1)).id == "general"
    assert [(one.id, one.used) for one in kept()] == [("newer", True), ("older", False)]
    remove(find_kept("newer"))
    assert estimator_for(model).id == "older"
    remove(find_kept("older"))
    assert estimator_for(model).id == "shipped"


def test_an_estimator_whose_writing_was_cut_short_is_none_and_a_damaged_card_is_told(home):
    model = tiny_model("qwen3_vl")
    folder = keep(dated(model, "one", "2026-01-01"))
    card = (folder / "card.json").read_bytes()
    (folder / "card.json").unlink()  # which comes last
    assert kept() == []
    assert estimator_for(model).id == "general"
    (folder / "card.json").write_bytes(card[:20])
    assert [(one.id, one.card, one.used) for one in kept()] == [("one", None, False)]
    with pytest.raises(EstimatorError, match=r"is not an estimator .* remove it"):
        estimator_for(model)
    remove(find_kept("one"))
    assert estimator_for(model).id == "general"


def test_an_id_is_kept_once_for_a_model_and_found_by_its_fingerprint_where_two_models_have_it(home):
    one, other = tiny_model("qwen3_vl"), build_tiny("qwen3_vl", seed=1)
    first = keep(dated(one, "mine", "2026-01-01"))
    with pytest.raises(EstimatorError, match="'mine' of that model is kept already; give another --name"):
        keep(dated(one, "mine", "2026-01-02"))
    for name in ("../mine", "", "a/b", ".."):
        with pytest.raises(EstimatorError, match="cannot be the id"):
            keep(dated(one, name, "2026-01-02"))
    with pytest.raises(EstimatorError, match="is no fingerprint"):
        keep(dated(one, "mine", "2026-01-01", fingerprint="../elsewhere"))
    keep(dated(other, "mine", "2026-01-01"))
    with pytest.raises(EstimatorError, match="Several models have an estimator 'mine'"):
        find_kept("mine")
    assert find_kept(f"{first.parent.name[:8]}/mine").folder == first
    with pytest.raises(EstimatorError, match=r"no estimator 'yours' in .*; there are: mine"):
        find_kept("yours")


def test_an_export_is_the_same_estimator_with_a_readme_and_a_full_disk_keeps_what_was_there(
    home, tmp_path, full_disk
):
    model = tiny_model("qwen3_vl")
    folder = keep(dated(model, "one", "2026-01-01"))
    export(find_kept("one"), tmp_path / "out")
    assert digest(read_estimator(tmp_path / "out")) == digest(read_estimator(folder))
    assert "# one" in (tmp_path / "out" / "README.md").read_text()
    fill(full_disk)
    with pytest.raises(DataError, match="The disk is full"):
        export(find_kept("one"), full_disk / "out")


def test_the_command_lists_shows_exports_and_removes(home, here):
    assert "No estimator is kept in" in succeed("estimators").stderr
    model = eyeline.load("model")
    keep(dated(model, "one", "2026-01-02T03:04:05", lds_held_out=0.7123, coverage=0.9))
    listed = succeed("estimators").stdout
    for part in ("one", "fitted", "39", "2026-01-02", "0.71", "yes"):
        assert part in listed
    shown = succeed("estimators", "show", "one").stdout
    assert "It was fitted on 39 images: its weights on 30, its intervals on 9." in shown
    assert "its LDS is 0.71" in shown
    assert "hold 90 % of measured effects" in shown
    assert ask()[0].estimator == "one"
    succeed("estimators", "export", "one", "exported")
    succeed("estimators", "remove", "one")
    assert ask()[0].estimator == "general"
    assert ask("--estimator", "exported")[0].estimator == "one"
    assert "There is no estimator 'one'" in refuse("estimators", "remove", "one")


def test_an_estimator_without_intervals_is_shown_as_one(home):
    keep(dated(tiny_model("qwen3_vl"), "small", "2026-01-01", level="calibrated", coverage=None))
    shown = succeed("estimators", "show", "small").stdout
    assert "Level: calibrated" in shown
    assert "It has no intervals: how far off its sizes are was not measured." in shown


# --- on the Hub


def test_an_estimator_that_was_put_on_the_hub_comes_back_the_same_and_again_from_the_cache_offline(
    hub, shared, monkeypatch
):
    address = shared.push_to_hub("owner/tiny-estimator", token=TOKEN)
    assert address.startswith(f"{hub.url}/owner/tiny-estimator/commit/")
    (files,) = hub.repositories["owner/tiny-estimator"].commits.values()
    assert sorted(files) == ["README.md", "card.json", "estimator.safetensors"]
    read = eyeline.Estimator.from_pretrained("owner/tiny-estimator")
    assert digest(read) == digest(shared)
    assert isinstance(read, eyeline.Estimator)
    assert estimator_for(tiny_model("qwen3_vl"), "owner/tiny-estimator").id == shared.id
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert digest(eyeline.Estimator.from_pretrained("owner/tiny-estimator")) == digest(shared)
    with pytest.raises(EstimatorError, match="HF_HUB_OFFLINE is set, and it is not in the cache here"):
        eyeline.Estimator.from_pretrained("owner/other")


def test_a_private_repository_opens_with_its_token_alone_and_a_public_one_is_not_taken_for_private(
    hub, shared
):
    shared.push_to_hub("owner/secret", private=True, token=TOKEN)
    assert hub.repositories["owner/secret"].private
    with pytest.raises(EstimatorError, match="no such repository, or it is private"):
        eyeline.Estimator.from_pretrained("owner/secret")
    assert digest(eyeline.Estimator.from_pretrained("owner/secret", token=TOKEN)) == digest(shared)
    shared.push_to_hub("owner/open", token=TOKEN)
    before = dict(hub.repositories["owner/open"].commits)
    with pytest.raises(EstimatorError, match="is public already, and it was to be private"):
        shared.push_to_hub("owner/open", private=True, token=TOKEN)
    assert hub.repositories["owner/open"].commits == before


def test_a_revision_is_a_branch_or_a_commit(hub, shared):
    shared.push_to_hub("owner/tiny", token=TOKEN)
    other = dataclasses.replace(shared, weights=-shared.weights)
    address = other.push_to_hub("owner/tiny", revision="second", token=TOKEN)
    assert digest(eyeline.Estimator.from_pretrained("owner/tiny")) == digest(shared)
    for revision in ("second", address.rsplit("/", 1)[-1]):
        assert digest(eyeline.Estimator.from_pretrained("owner/tiny", revision=revision)) == digest(other)
    with pytest.raises(EstimatorError, match="no revision 'third'"):
        eyeline.Estimator.from_pretrained("owner/tiny", revision="third")


def test_what_the_hub_does_not_give_or_take_is_one_sentence(hub, shared, tmp_path):
    with pytest.raises(EstimatorError, match="no such repository, or it is private"):
        eyeline.Estimator.from_pretrained("owner/none")
    with pytest.raises(EstimatorError, match="the token does not allow it, or there is none"):
        shared.push_to_hub("owner/new")
    with pytest.raises(EstimatorError, match="expected owner/name"):
        shared.push_to_hub("a/b/c", token=TOKEN)
    huggingface_hub.HfApi(token=TOKEN).create_repo("owner/empty")
    hub.repositories["owner/empty"].commit("main", {"notes.txt": b"hello"})
    with pytest.raises(EstimatorError, match=r"has no card\.json and no estimator\.safetensors"):
        eyeline.Estimator.from_pretrained("owner/empty")
    shared.push_to_hub("owner/tiny", token=TOKEN)
    with pytest.raises(EstimatorError, match="was fitted for"):
        estimator_for(build_tiny("qwen3_vl", seed=1), "owner/tiny")
    shared.save_pretrained(tmp_path / "folder")
    with pytest.raises(EstimatorError, match=r"A revision .* is a folder"):
        eyeline.Estimator.from_pretrained(tmp_path / "folder", revision="main")
    with pytest.raises(EstimatorError, match="is not an estimator"):
        eyeline.Estimator.from_pretrained(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="could not be written"):
        shared.save_pretrained(tmp_path / "file" / "below")


def test_the_readme_has_metadata_of_what_is_known_alone(shared, tmp_path):
    shared.save_pretrained(tmp_path / "known")
    _, head, body = (tmp_path / "known" / "README.md").read_text().split("---\n", 2)
    about = yaml.safe_load(head)
    assert (about["library_name"], about["base_model"]) == ("eyeline", "owner/tiny")
    assert "attribution" in about["tags"]
    (result,) = about["model-index"][0]["results"]
    assert [(each["type"], each["value"]) for each in result["metrics"]] == [("lds", 0.71)]
    assert "## Limits" in body
    here = dataclasses.replace(shared, card={"model": "/home/someone/tiny"})
    here.save_pretrained(tmp_path / "unknown")
    about = yaml.safe_load((tmp_path / "unknown" / "README.md").read_text().split("---\n", 2)[1])
    assert "base_model" not in about
    assert "model-index" not in about


def test_the_hub_learns_no_path_of_this_machine(hub, shared):
    dataclasses.replace(shared, card={**shared.card, "model": "/home/someone/tiny"}).push_to_hub(
        "owner/tiny", token=TOKEN
    )
    (files,) = hub.repositories["owner/tiny"].commits.values()
    assert json.loads(files["card.json"])["model"] == "tiny"
    assert not any(b"/home/someone" in content for content in files.values())


def test_the_command_puts_one_on_the_hub_that_the_environment_names(hub, home, tmp_path):
    keep(dated(tiny_model("qwen3_vl"), "one", "2026-01-01"))
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    words = [sys.executable, "-m", "eyeline", "estimators", "push", "one", "owner/one", "--private"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{hub.url}/owner/one/commit/")
    assert hub.repositories["owner/one"].private


def test_only_numbers_are_read(hub, shared, tmp_path):
    """A pickle in the place of the numbers is refused, not run."""
    shared.save_pretrained(tmp_path / "bad")
    torch.save({"weights": shared.weights}, tmp_path / "bad" / "estimator.safetensors")
    with pytest.raises(EstimatorError, match="is not an estimator"):
        eyeline.Estimator.from_pretrained(tmp_path / "bad")
