"""A model loads from anywhere by one path, and asks its question as its own processor would."""

import inspect
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from conftest import build_tiny, picture, tiny_model, tiny_tokenizer
from huggingface_hub import errors as hub
from huggingface_hub.utils import httpx
from safetensors.torch import load_file, save_file

import eyeline.loading
import eyeline.notebook
import eyeline.stream
from eyeline import Model, load
from eyeline.errors import EyelineError, ImageError, PromptError, UnsupportedModelError
from eyeline.loading import plain_errors
from eyeline.notebook import Watched
from eyeline.stream import Stream

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


# --- loading


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
    monkeypatch.setattr(eyeline.loading, "MODELS", tmp_path / "models")
    with pytest.raises(EyelineError, match=r"embedded model 'qwen3-vl-mini' are missing"):
        load("mini")
    shutil.copytree(folder, tmp_path / "models" / "qwen3-vl-mini")
    for source in ("mini", "qwen3-vl-mini"):
        model = load(source)
        assert model.name == "qwen3-vl-mini"
        assert model.hf.name_or_path == str(tmp_path / "models" / "qwen3-vl-mini")


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
    assert "glm4v, qwen2_5_vl, qwen3_vl" in str(caught.value)


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


def test_importing_the_package_does_not_import_the_models_of_transformers():
    code = "import sys, eyeline.attention; print([m for m in sys.modules if 'transformers.models' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- asking


def test_inputs_are_those_of_the_models_own_processor(tiny):
    """The reference expands the placeholder in the text, as transformers' processors do."""
    images = [picture(), picture(64, 130)]
    inputs = tiny.inputs(images, "What is it?")
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "What is it?"}]
    text = tiny.tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    pixels = tiny.image_processor(images=images, return_tensors="pt")
    token = tiny.tokenizer.convert_ids_to_tokens(tiny.hf.config.image_token_id)
    for grid in pixels["image_grid_thw"]:
        text = text.replace(
            token, "<placeholder>" * int(grid.prod() // tiny.image_processor.merge_size**2), 1
        )
    reference = tiny.tokenizer(text.replace("<placeholder>", token), return_tensors="pt")
    assert torch.equal(inputs["input_ids"], reference["input_ids"])
    assert torch.equal(inputs["attention_mask"], reference["attention_mask"])
    assert torch.equal(
        inputs["mm_token_type_ids"].bool(), inputs["input_ids"] == tiny.hf.config.image_token_id
    )
    assert torch.equal(inputs["pixel_values"], pixels["pixel_values"])
    assert torch.equal(inputs["image_grid_thw"], pixels["image_grid_thw"])
    assert answer(tiny, inputs)


def test_a_path_and_its_image_give_the_same_inputs(tiny, tmp_path):
    picture().save(tmp_path / "a.png")
    one = tiny.inputs(picture(), "What?")
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), [tmp_path / "a.png"]):
        other = tiny.inputs(source, "What?")
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_bytes_and_an_array_give_the_same_inputs_as_their_image(tiny, tmp_path):
    path = tmp_path / "a.png"
    picture().save(path)
    expected = tiny.inputs(picture(), "How many?")
    for source in (path.read_bytes(), np.asarray(picture()), [np.asarray(picture())]):
        inputs = tiny.inputs(source, "How many?")
        assert all(torch.equal(inputs[name], expected[name]) for name in expected)


def test_the_answer_depends_on_the_image_and_on_the_prompt(tiny):
    def logits(image, prompt):
        with torch.inference_mode():
            return tiny.hf(**tiny.inputs(image, prompt)).logits[0, -1]

    base = logits(picture(), "What?")
    assert not torch.allclose(base, logits(picture(seed=1), "What?"), atol=1e-3)
    assert not torch.allclose(base, logits(picture(), "Why?"), atol=1e-3)


def test_it_says_whether_the_prompt_already_opened_the_thinking(tiny):
    ids = tiny.inputs(picture(), "What?")["input_ids"]
    assert tiny.prompt_opens_thinking(ids) == (tiny.adapter.family != "glm4v")
    quoted = tiny.inputs(picture(), "What does <think> mean?")["input_ids"]
    assert tiny.prompt_opens_thinking(quoted) == (tiny.adapter.family != "glm4v")
    plain = tiny.tokenizer("<think>\nwell", return_tensors="pt")["input_ids"]
    assert not tiny.prompt_opens_thinking(plain)


@pytest.mark.parametrize("prompt", ["", "  \n\t"])
def test_an_empty_prompt_is_refused(tiny, prompt):
    with pytest.raises(PromptError, match="empty"):
        tiny.inputs(picture(), prompt)


def test_a_prompt_longer_than_the_context_is_refused(tiny):
    assert tiny.context_length == 2048
    with pytest.raises(PromptError, match=r"context holds 2048.*shorten"):
        tiny.inputs(picture(), "a" * 2048)


def test_a_prompt_that_spells_out_the_image_token_is_refused(tiny):
    token = tiny.tokenizer.convert_ids_to_tokens(tiny.hf.config.image_token_id)
    with pytest.raises(PromptError, match="2 image tokens for 1 images"):
        tiny.inputs(picture(), f"What does {token} mean?")


def test_no_image_is_refused(tiny):
    with pytest.raises(ImageError, match="No image"):
        tiny.inputs([], "What?")


# --- how it shows itself


def test_a_model_shows_itself_in_three_lines(tiny):
    lines = repr(tiny).splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) < 110
    assert lines[0] == f"Model {tiny.name!r} of the family {tiny.adapter.family}"
    assert re.fullmatch(r"  \d+\.\d million parameters in \d+ layers of \d+ heads, float32 on cpu", lines[1])
    assert lines[2] == "  context of 2,048 tokens, thinking between <think> and </think>"


@pytest.mark.parametrize("name", ["stream", "attribute"])
def test_help_on_a_model_shows_each_option_of_the_function_behind_it(name):
    method = inspect.signature(getattr(Model, name)).parameters
    behind = inspect.signature(getattr(eyeline.stream, name)).parameters
    assert {key: behind[key].default for key in behind if key != "model"} == {
        key: method[key].default for key in method if key != "self"
    }
    watch, stream = (inspect.signature(each).parameters for each in (Model.watch, Model.stream))
    assert {key: watch[key].default for key in watch} == {key: stream[key].default for key in stream}
    for option in (each for each in method if each != "self"):
        assert f"`{option}`" in (getattr(Model, name).__doc__ or "") or option in (
            "images",
            "prompt",
            "top_p",
            "top_k",
        )


GIVEN = {
    "estimator": "e", "regions": "grid", "max_new_tokens": 3, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "seed": 1,
    "stop": "x", "pending_bytes": 7, "hidden": None, "repetition_penalty": 1.5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("module", "name", "kind"), [(eyeline.stream, "stream", Stream), (eyeline.notebook, "watch", Watched)]
)
def test_options_reach_the_functions_behind_the_models_own_methods(monkeypatch, module, name, kind):
    model, taken = tiny_model("qwen3_vl"), {}
    monkeypatch.setattr(module, name, lambda *_, **options: taken.update(options) or object.__new__(kind))
    getattr(model, name)(picture(), "What?", **GIVEN)
    assert taken == GIVEN


@pytest.mark.parametrize("given", [{}, {"top_p": 0.9}, {"top_k": 5}])
def test_what_is_left_out_is_left_to_the_models_generation_config(monkeypatch, given):
    asked = []
    monkeypatch.setattr(eyeline.stream, "check_options", lambda _, options: asked.append(dict(options)))
    with tiny_model("qwen3_vl").stream(picture(), "What?", max_new_tokens=1, **given):
        pass
    assert asked == [given]


def test_the_tiny_tokenizer_reads_back_what_it_writes():
    tokenizer = tiny_tokenizer("qwen3_vl")
    text = "Ünïcode 😀 <think>x</think>\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert isinstance(tokenizer, transformers.PreTrainedTokenizerFast)
