"""A model loads from anywhere by one path."""

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import build_tiny, picture
from huggingface_hub import errors as hub
from huggingface_hub.utils import httpx
from safetensors.torch import load_file, save_file

import eyeline.embedded
from eyeline import load
from eyeline.embedded import folders, own_folders
from eyeline.errors import EyelineError, UnsupportedModelError
from eyeline.loading import plain_errors, quiet

REFUSED = httpx.Response(404, request=httpx.Request("GET", "https://huggingface.co/some/model"))


def save(model, folder, dtype=torch.float32):
    """What `save_pretrained` writes: the folder of a model."""
    model.hf.to(dtype).save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    model.image_processor.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tiny, tmp_path):
    return save(build_tiny(tiny.adapter.family), tmp_path / "model")


def answer(model, inputs):
    return model.hf.generate(**inputs, max_new_tokens=8, do_sample=False).tolist()


def test_a_folder_loads_as_the_model_that_was_saved(tiny, folder, capfd):
    model = load(folder)
    assert not capfd.readouterr().err, "no bars, no notices"
    assert model.name == str(folder)
    assert type(model.hf) is type(tiny.hf)
    assert not model.hf.training
    assert model.adapter is tiny.adapter
    ours, theirs = (m.inputs(picture(), "What is it?") for m in (model, tiny))
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name])
    assert answer(model, ours) == answer(tiny, theirs)


def test_sixteen_bit_weights_become_float32_on_cpu_and_stay_so_when_asked(tiny, tmp_path):
    folder = save(build_tiny(tiny.adapter.family), tmp_path / "model", torch.bfloat16)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    cast, kept = load(folder, device="cpu"), load(folder, device="cpu", dtype=torch.bfloat16)
    assert cast.hf.dtype == torch.float32
    assert kept.hf.dtype == torch.bfloat16
    for (name, ours), theirs in zip(cast.hf.named_parameters(), kept.hf.parameters(), strict=True):
        assert torch.equal(ours, theirs.float()), name


def test_the_chat_template_is_found_in_either_file_beside_a_tokenizer_that_has_none(tiny, folder):
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(UnsupportedModelError, match="no chat template"):
        load(folder)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": tiny.chat_template}))
    assert load(folder).chat_template == tiny.chat_template
    config = json.loads((folder / "tokenizer_config.json").read_text()) | {
        "chat_template": "of the tokenizer"
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert load(folder).chat_template == tiny.chat_template, "as transformers' processors choose"


def test_a_loaded_model_is_taken_with_its_processor_or_the_two_parts_of_one(tiny):
    class Processor:
        tokenizer = tiny.tokenizer
        image_processor = tiny.image_processor
        chat_template = None

    model = load((tiny.hf, Processor()))
    assert model.hf is tiny.hf
    assert model.chat_template == tiny.chat_template
    with pytest.raises(UnsupportedModelError, match=r"PreTrainedTokenizerFast|TokenizersBackend"):
        load((tiny.hf, tiny.tokenizer))


def test_mini_is_the_embedded_folder(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(eyeline.embedded, "MODELS", tmp_path / "models")
    with pytest.raises(EyelineError, match=r"embedded model 'qwen3-vl-mini' are missing"):
        load("mini")
    shutil.copytree(folder, tmp_path / "models" / "qwen3-vl-mini")
    for source in ("mini", "qwen3-vl-mini"):
        model = load(source)
        assert model.name == "qwen3-vl-mini"
        assert model.hf.name_or_path == str(tmp_path / "models" / "qwen3-vl-mini")


def test_the_other_miniatures_come_with_their_own_package(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(eyeline.embedded, "find_spec", lambda name: None)
    with pytest.raises(EyelineError, match=r"'glm4v-mini' is one of .* pip install eyeline-minis"):
        load("glm4v-mini")
    beside = SimpleNamespace(submodule_search_locations=[str(tmp_path / "beside")])
    monkeypatch.setattr(
        eyeline.embedded, "find_spec", lambda name: beside if name == "eyeline_minis" else None
    )
    shutil.copytree(folder, tmp_path / "beside" / "glm4v-mini")
    assert load("glm4v-mini").hf.name_or_path == str(tmp_path / "beside" / "glm4v-mini")
    assert own_folders("glm4v-mini") == (tmp_path / "beside" / "glm4v-mini", Path("glm4v-mini"))
    assert own_folders("other/model") == (Path("other/model"),)
    assert [each.name for each in folders()][-1] == "glm4v-mini"


def test_what_is_not_there_is_one_sentence(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    wrong = {
        tmp_path: "no config.json",
        tmp_path / "missing": "does not exist",
        str(tmp_path / "missing"): "does not exist",
        "./missing": "does not exist",
        "a/b/c": "does not exist",
        "": "does not exist",
        tmp_path / "notes.txt": "is a file, not a model folder",
        "nobody/no-such-model": "cannot be reached",
        "no such model": "check its spelling",
    }
    for source, message in wrong.items():
        with pytest.raises(EyelineError, match=message) as caught:
            load(source)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        (hub.LocalEntryNotFoundError("Connection refused"), "Hub cannot be reached"),
        (hub.OfflineModeIsEnabled("offline"), "Hub cannot be reached"),
        (httpx.ConnectError("refused"), "Hub cannot be reached"),
        (hub.HFValidationError("bad id"), "check its spelling"),
        (hub.RepositoryNotFoundError("404", response=REFUSED), "check its spelling"),
        (hub.GatedRepoError("403", response=REFUSED), "is gated"),
        (ValueError("first line\nsecond line"), "cannot be loaded"),
    ],
)
def test_what_the_hub_raises_becomes_one_sentence(cause, message):
    failure = OSError("We couldn't connect\nto anything")
    failure.__cause__ = cause
    with pytest.raises(UnsupportedModelError, match=message) as caught, plain_errors("some/model"):
        raise failure
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("qwen3", "takes no images"),
        ("llava", "No adapter"),
        ("telepathy", "does not know"),
        (None, "does not know"),
    ],
)
def test_other_families_are_refused_before_any_weight_is_read(tmp_path, family, message):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family} if family else {}))
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        load(tmp_path)
    assert "glm46v, glm4v, glm4v_moe, qwen2_5_vl, qwen3_vl" in str(caught.value)


def test_a_misspelt_name_of_the_embedded_model_is_told_the_right_one_without_asking_the_hub():
    with pytest.raises(EyelineError, match=r"no model 'minni'; nearest: 'mini'"):
        load("minni")


def test_attempts_of_the_hubs_client_that_failed_are_not_told_while_a_model_loads():
    client = logging.getLogger("huggingface_hub.utils._http")
    before = client.isEnabledFor(logging.WARNING)
    with quiet("owner/name"):
        assert not client.isEnabledFor(logging.WARNING)
    assert client.isEnabledFor(logging.WARNING) == before


def test_incomplete_and_broken_folders_are_refused(folder):
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    tensors = load_file(weights)
    name = next(key for key in tensors if "q_proj.weight" in key)
    tensors.pop(name)
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(UnsupportedModelError, match="lack 1 tensors"):
        load(folder)
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnsupportedModelError, match="cannot be loaded"):
        load(folder)
    weights.unlink()
    with pytest.raises(UnsupportedModelError, match="cannot be loaded"):
        load(folder)
    weights.write_bytes(whole)
    (folder / "config.json").write_text("{")
    with pytest.raises(UnsupportedModelError, match="cannot be loaded"):
        load(folder)
