"""A model asks its question as its own processor would, and shows what it is."""

import re

import numpy as np
import pytest
import torch
import transformers
from conftest import picture, tiny_tokenizer

from eyeline.errors import ImageError, PromptError


def answer(model, inputs):
    return model.hf.generate(**inputs, max_new_tokens=8, do_sample=False).tolist()


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
    assert tiny.prompt_opens_thinking(ids) == (not tiny.adapter.family.startswith("glm"))
    quoted = tiny.inputs(picture(), "What does <think> mean?")["input_ids"]
    assert tiny.prompt_opens_thinking(quoted) == (not tiny.adapter.family.startswith("glm"))
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


def test_a_model_shows_itself_in_three_lines(tiny):
    lines = repr(tiny).splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) < 110
    assert lines[0] == f"Model {tiny.name!r} of the family {tiny.adapter.family}"
    assert re.fullmatch(r"  \d+\.\d million parameters in \d+ layers of \d+ heads, float32 on cpu", lines[1])
    assert lines[2] == "  context of 2,048 tokens, thinking between <think> and </think>"


def test_the_tiny_tokenizer_reads_back_what_it_writes():
    tokenizer = tiny_tokenizer("qwen3_vl")
    text = "Ünïcode 😀 <think>x</think>\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert isinstance(tokenizer, transformers.PreTrainedTokenizerFast)
