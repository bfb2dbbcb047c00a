"""The embedded model's training data against what the model will really see."""

import copy
import functools

import numpy as np
import pytest
import torch

from eyeline.scenes import FAMILIES, draw
from eyeline.training.mini import (
    build_image_processor,
    build_model,
    build_tokenizer,
    embed_still,
    language_loss,
    merge,
    see,
)
from eyeline.training.mini_data import HEADS, Batches, collate, dense_labels, patches, reply, soup

tokenizer = functools.cache(build_tokenizer)


@functools.cache
def model():
    torch.manual_seed(0)
    return build_model(tokenizer()).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_patches_are_those_of_the_image_processor(family):
    scene = draw(family, 11)
    processed = build_image_processor()(images=[scene.image], return_tensors="pt")
    ours = torch.from_numpy(patches(np.asarray(scene.image))).float() / 127.5 - 1
    frames = processed["pixel_values"].view(len(ours), 3, 2, 16, 16)
    for frame in (0, 1):
        torch.testing.assert_close(ours.view(-1, 3, 16, 16), frames[:, :, frame], atol=1e-6, rtol=0)


def test_questions_packed_together_cost_what_they_cost_alone():
    scene = draw("document", 3)
    batch = collate([scene], tokenizer(), 3)
    still = copy.deepcopy(model())
    embed_still(still)
    with torch.no_grad():
        packed, _ = language_loss(still, batch, see(still, batch)[0])
    total, count = torch.zeros(()), 0
    pixels = build_image_processor()(images=[scene.image], return_tensors="pt")
    for question in scene.questions[:3]:
        turn = [{"type": "image"}, {"type": "text", "text": question.prompt}]
        text = tokenizer().apply_chat_template(
            [{"role": "user", "content": turn}], tokenize=False, add_generation_prompt=True
        )
        text = text.replace("<|image_pad|>", "<|image_pad|>" * len(batch.labels))
        asked = tokenizer().encode(text, add_special_tokens=False)
        told = tokenizer().encode(reply(question.trace, question.answer), add_special_tokens=False)
        ids = torch.tensor([asked + told])
        with torch.no_grad():
            logits = (
                model()(
                    input_ids=ids,
                    mm_token_type_ids=(ids == model().config.image_token_id).int(),
                    **pixels,
                )
                .logits[0, len(asked) - 1 : -1]
                .log_softmax(-1)
            )
        total -= logits.gather(1, torch.tensor(told)[:, None]).sum()
        count += len(told)
    torch.testing.assert_close(packed, total / count)


def test_embedding_one_frame_equals_embedding_two():
    pixels = torch.rand(8, 3 * 16 * 16)
    two = pixels.view(8, 3, 1, 256).expand(-1, -1, 2, -1).reshape(8, -1)
    fresh = build_model(tokenizer())
    expected = fresh.model.visual.patch_embed(two)
    embed_still(fresh)
    torch.testing.assert_close(fresh.model.visual.patch_embed(pixels), expected)


def test_merging_block_outputs_again_gives_the_towers_own_features():
    fresh = build_model(tokenizer())
    embed_still(fresh)
    batch = collate([draw("math", 1), draw("code", 1)], tokenizer(), 1)
    with torch.no_grad():
        seen, blocks = see(fresh, batch)
        expected = torch.cat(seen.pooler_output), [torch.cat(deep) for deep in seen.deepstack_features]
        again = merge(fresh, blocks, batch.grids, seen)
    torch.testing.assert_close(torch.cat(again.pooler_output), expected[0])
    for ours, theirs in zip(again.deepstack_features, expected[1], strict=True):
        torch.testing.assert_close(torch.cat(ours), theirs)


def test_dense_labels_name_what_a_token_shows():
    scene = soup(5)
    labels = dense_labels(scene)
    assert labels.shape == (64, len(HEADS))
    assert (labels < np.array(list(HEADS.values()))).all()
    number = next(item for item in scene.canvas.items if item.word.isdigit() and len(item.word) == 2)
    left, top, right, bottom = number.box
    cell = labels.reshape(8, 8, -1)[(top + bottom) // 64, (left + right) // 64]
    assert (cell[5], cell[6]) == (int(number.word[0]) + 1, int(number.word[1]) + 1)


def test_two_processes_draw_different_scenes_and_together_all():
    drawn = []
    for index in (0, 1):
        batches = iter(Batches(tokenizer(), 0, 2, 1, index, 2))
        drawn.append([tuple(next(batches).ids.flatten().tolist()) for _ in range(4)])
    assert not set(drawn[0]) & set(drawn[1])


def test_the_tokenizer_writes_any_text():
    for text in ("Zürich 北京 🦊\n\ttab", "\x00\x7f", "a  b   c"):
        assert tokenizer().decode(tokenizer().encode(text, add_special_tokens=False)) == text
