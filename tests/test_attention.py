"""Captured attention, and what is kept beside it, is the model's own."""

import pytest
import torch
from captures import NEW_TOKENS, QUESTION, attention_of, generate, pad_left
from conftest import CACHE, FAMILIES, build_tiny, picture, tiny_model
from transformers import DynamicCache

from eyeline.capture import AttentionCapture
from eyeline.errors import UnsupportedModelError
from eyeline.kernels import KERNELS, any_kernel


def eager_attention(family, inputs, generated, columns, **text_options):
    """The slow truth, (layer, head, generated token, image column), decoded with `output_attentions`."""
    model = build_tiny(family, **text_options)
    model.hf.set_attn_implementation("eager")
    decoded = generate(model, inputs, output_attentions=True, return_dict_in_generate=True)
    assert decoded.sequences.tolist() == generated.tolist()
    steps = [
        torch.stack([layer[0, :, -1] for layer in step]) for step in decoded.attentions
    ]  # (layer, head, column)
    widths = [step.shape[-1] for step in steps]
    assert widths == list(range(widths[0], widths[0] + len(widths))), "no layer dropped keys"
    return torch.stack([step[..., columns] for step in steps], dim=2)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("family", FAMILIES)
def test_captured_attention_is_that_of_every_layer_and_head_in_prefill_and_decoding(family, padding):
    model = tiny_model(family)
    inputs = model.inputs([picture(), picture(130, 100, seed=1)], QUESTION)
    if padding:
        inputs = pad_left(inputs, padding, model.tokenizer.pad_token_id)
    with AttentionCapture(model, inputs) as capture:
        generated = generate(model, inputs)
    ours = attention_of(capture, capture.take(0, NEW_TOKENS))
    theirs = eager_attention(family, inputs, generated, capture.image_positions)
    assert ours.shape == (3, 4, NEW_TOKENS, sum(len(grid) for grid in capture.grids))
    assert theirs.std() > 1e-3, "attention varies, so equality means something"
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_teacher_forced_forward_keeps_what_decoding_the_same_tokens_keeps(tiny):
    inputs = tiny.inputs([picture(), picture(64, 96, seed=1)], QUESTION)
    prompt_length = inputs["input_ids"].shape[1]
    with AttentionCapture(tiny, inputs) as decoding:
        ids = generate(tiny, inputs)
    full = inputs | {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, NEW_TOKENS)),
    }
    with AttentionCapture(tiny, full, prompt_length=prompt_length) as forced, torch.inference_mode():
        tiny.hf(**full, use_cache=False)
    assert forced.num_tokens == NEW_TOKENS + 1  # the last row predicts one more
    columns = (capture.image_columns(slice(None)) for capture in (forced, decoding))
    for ours, theirs in zip(*columns, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    for start, end in ((0, 1), (0, NEW_TOKENS), (3, 7), (NEW_TOKENS - 1, NEW_TOKENS)):
        ours, theirs = forced.take(start, end), decoding.take(start, end)
        assert (ours.start, len(ours)) == (theirs.start, len(theirs)) == (start, end - start)
        for name in ("queries", "log_sum_exp", "hidden", "attention_rms"):
            assert (getattr(ours, name) is None) == (getattr(theirs, name) is None)
            if getattr(ours, name) is not None:
                torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            attention_of(forced, ours), attention_of(decoding, theirs), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("layers", [[1], [2, 0]])
def test_of_some_layers_the_same_is_kept_as_where_all_are(tiny, layers):
    inputs = tiny.inputs([picture(), picture(64, 96, seed=1)], QUESTION)
    with AttentionCapture(tiny, inputs) as whole:
        ids = generate(tiny, inputs)
    with AttentionCapture(tiny, inputs, layers=layers) as some:
        assert generate(tiny, inputs).tolist() == ids.tolist()
    wanted = sorted(layers)
    assert some.layers == tuple(wanted)
    assert whole.layers == (0, 1, 2)
    columns = (capture.image_columns(slice(None)) for capture in (some, whole))
    assert all(torch.equal(ours, theirs[wanted]) for ours, theirs in zip(*columns, strict=True))
    for start, end in ((0, NEW_TOKENS), (2, 5)):
        ours, theirs = some.take(start, end), whole.take(start, end)
        assert torch.equal(ours.hidden, theirs.hidden)
        assert torch.equal(ours.likeliest.logits, theirs.likeliest.logits)
        for name in ("queries", "log_sum_exp", "attention_rms"):
            of_all = getattr(theirs, name)
            if of_all is None:
                assert getattr(ours, name) is None
            else:
                assert torch.equal(getattr(ours, name), of_all[wanted])
        torch.testing.assert_close(attention_of(some, ours), attention_of(whole, theirs)[wanted])


def test_hidden_states_are_those_that_the_final_norm_and_the_head_turn_into_the_logits(tiny):
    inputs = tiny.inputs(picture(), QUESTION)
    with AttentionCapture(tiny, inputs) as capture:
        decoded = generate(tiny, inputs, output_logits=True, return_dict_in_generate=True)
    hidden = capture.take(0, NEW_TOKENS).hidden
    with torch.inference_mode():
        logits = tiny.adapter.lm_head(tiny.hf)(tiny.adapter.final_norm(tiny.hf)(hidden))
    torch.testing.assert_close(logits, torch.cat(decoded.logits), rtol=1e-4, atol=1e-4)
    kept = capture.take(0, len(logits)).likeliest
    assert torch.equal(kept.logits, torch.cat(decoded.logits)), "all of a small vocabulary"


def test_the_rms_is_the_divisor_of_the_norm_after_attention_where_there_is_one(tiny):
    inputs = tiny.inputs(picture(), QUESTION)
    layers = tiny.adapter.layers(tiny.hf)
    seen = [[] for _ in layers]
    hooks = [
        norm.register_forward_hook(
            lambda _, args, output, i=i: seen[i].append((args[0][0, -1], output[0, -1]))
        )
        for i, layer in enumerate(layers)
        if (norm := tiny.adapter.attention_norm(layer)) is not None
    ]
    with AttentionCapture(tiny, inputs) as capture:
        generate(tiny, inputs)
    for hook in hooks:
        hook.remove()
    rms = capture.take(0, NEW_TOKENS).attention_rms
    assert (rms is not None) == bool(hooks) == (tiny.adapter.family in ("glm4v", "glm46v"))
    for i, layer in enumerate(layers if hooks else []):
        norm = tiny.adapter.attention_norm(layer)
        before, after = (torch.stack(tensors) for tensors in zip(*seen[i], strict=True))
        torch.testing.assert_close(norm.weight * before / rms[i][:, None], after, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("images", [1, 2])
def test_keys_and_values_are_those_of_the_cache_at_the_image_tokens(tiny, images):
    inputs = tiny.inputs([picture(), picture(64, 96, seed=1)][:images], QUESTION)
    with AttentionCapture(tiny, inputs) as capture, torch.inference_mode():
        cache = tiny.hf(**inputs, use_cache=True).past_key_values
    keys, values = capture.image_columns(slice(None))
    for layer in range(3):
        theirs = cache.layers[layer]
        assert torch.equal(keys[layer], theirs.keys[0][:, capture.image_positions])
        assert torch.equal(values[layer], theirs.values[0][:, capture.image_positions])


def test_an_image_is_held_by_the_models_cache_alone_and_not_by_the_capture_too(tiny):
    inputs = tiny.inputs(picture(), QUESTION)
    with AttentionCapture(tiny, inputs) as capture:
        cache = generate(tiny, inputs, return_dict_in_generate=True).past_key_values
    for layer, theirs in enumerate(cache.layers):
        ours = capture.image_columns(slice(layer, layer + 1))
        for one, other in zip(ours, (theirs.keys, theirs.values), strict=True):
            assert one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def test_vision_features_come_along_for_each_image_row_by_row(tiny):
    images = [picture(), picture(64, 96, seed=1)]
    inputs = tiny.inputs(images, QUESTION)
    with AttentionCapture(tiny, inputs) as capture:
        generate(tiny, inputs, tokens=1)
    with torch.inference_mode():
        theirs = tiny.hf.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"]).pooler_output
    assert capture.vision_features is not None
    assert len(capture.vision_features) == len(theirs) == 2
    for ours, feature, grid in zip(capture.vision_features, theirs, capture.grids, strict=True):
        assert len(ours) == grid.rows * grid.cols
        torch.testing.assert_close(ours, feature)


@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("chunk", [3, 7])
def test_a_prompt_read_in_chunks_gives_the_same_attention(chunk, window):
    options = {"use_sliding_window": window is not None, "sliding_window": window, "max_window_layers": 1}
    model = build_tiny("qwen2_5_vl", **options)
    inputs = model.inputs(picture(), "What?")
    length = inputs["input_ids"].shape[1]
    assert window is None or length - 1 - int(model.image_grids(inputs)[0].positions[0]) > window
    with AttentionCapture(model, inputs) as whole:
        generate(model, inputs, tokens=1)
    with AttentionCapture(model, inputs) as chunked, torch.inference_mode():
        positions, _ = model.hf.model.get_rope_index(
            inputs["input_ids"], inputs["mm_token_type_ids"], image_grid_thw=inputs["image_grid_thw"]
        )
        images = model.hf.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"]).pooler_output
        embeds = model.hf.model.get_input_embeddings()(inputs["input_ids"])
        embeds[0, whole.image_positions] = torch.cat(images)
        cache = DynamicCache(config=model.hf.config.text_config)
        for start in range(0, length, chunk):
            model.hf.model.language_model(
                inputs_embeds=embeds[:, start : start + chunk],
                position_ids=positions[:, :, start : start + chunk],
                **{CACHE: cache},
            )
    assert chunked.num_tokens == 1
    ours, theirs = (attention_of(capture, capture.take(0, 1)) for capture in (chunked, whole))
    assert (theirs == 0).any() == (window is not None)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_outside_a_sliding_window_the_attention_is_zero():
    inputs = tiny_model("qwen2_5_vl").inputs(picture(), QUESTION)
    window = inputs["input_ids"].shape[1] - 5  # the first tokens still see some of the image
    options = {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 1}
    model = build_tiny("qwen2_5_vl", **options)
    slow = build_tiny("qwen2_5_vl", **options)
    slow.hf.set_attn_implementation("eager")
    tokens = 30
    with AttentionCapture(model, inputs) as capture:
        ids = generate(model, inputs, tokens=tokens)
    with torch.inference_mode():  # one pass over everything: no key is ever dropped
        types = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, tokens))
        full = inputs | {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": types}
        layers = slow.hf(**full, use_cache=False, output_attentions=True).attentions
    rows = slice(capture.prompt_length - 1, capture.prompt_length - 1 + tokens)
    theirs = torch.stack([layer[0, :, rows][..., capture.image_positions] for layer in layers])
    ours = attention_of(capture, capture.take(0, tokens))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert (ours[0] > 0).all(), "the first layer sees everything"
    assert (ours[1:, :, -1] == 0).all()
    assert (ours[1:, :, 0] > 0).any()


def test_only_the_windows_of_captured_layers_count_but_knockout_heeds_all():
    inputs = tiny_model("qwen2_5_vl").inputs(picture(), QUESTION)
    options = {"use_sliding_window": True, "sliding_window": inputs["input_ids"].shape[1] - 5}
    model = build_tiny("qwen2_5_vl", **options, max_window_layers=1)
    attention = {}
    for layers in ([0, 1, 2], [1, 2], [0]):
        with AttentionCapture(model, inputs, layers=layers) as capture:
            generate(model, inputs)
        steps = capture.take(0, NEW_TOKENS)
        attention[len(layers)] = attention_of(capture, steps)
        assert (capture.visible(steps) is None) == (layers == [0])
    torch.testing.assert_close(attention[2], attention[3][1:])
    torch.testing.assert_close(attention[1], attention[3][:1])
    assert (attention[2] == 0).any()
    with pytest.raises(UnsupportedModelError, match="hide pixels"):
        AttentionCapture(model, inputs, hidden=torch.zeros(6, dtype=torch.bool), layers=[0])


def test_a_kernel_without_log_sum_exp_gives_the_same_attention_and_says_that_it_is_slow(tiny, monkeypatch):
    inputs = pad_left(tiny.inputs(picture(), QUESTION), 3, tiny.tokenizer.pad_token_id)
    with AttentionCapture(tiny, inputs) as fast:
        ids = generate(tiny, inputs)
    monkeypatch.setitem(KERNELS, "cpu", any_kernel)
    with pytest.warns(UserWarning, match="slows decoding down"), AttentionCapture(tiny, inputs) as slow:
        assert generate(tiny, inputs).tolist() == ids.tolist()
    ours, theirs = (attention_of(capture, capture.take(0, NEW_TOKENS)) for capture in (slow, fast))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_in_bfloat16_the_weights_match_within_its_precision(tiny):
    model = build_tiny(tiny.adapter.family)
    model.hf.to(torch.bfloat16)
    inputs = model.inputs(picture(), QUESTION)
    with AttentionCapture(model, inputs) as capture:
        ids = generate(model, inputs)
    assert generate(model, inputs).tolist() == ids.tolist()
    model.hf.set_attn_implementation("eager")
    decoded = generate(model, inputs, tokens=1, output_attentions=True, return_dict_in_generate=True)
    theirs = torch.stack([layer[0, :, -1:, capture.image_positions] for layer in decoded.attentions[0]])
    torch.testing.assert_close(
        attention_of(capture, capture.take(0, 1)), theirs.float(), rtol=0.05, atol=0.03
    )


def test_knockout_reaches_layers_that_are_not_captured(tiny):
    inputs = tiny.inputs(picture(), QUESTION)
    options = {"output_logits": True, "return_dict_in_generate": True}
    hidden = torch.tensor([True, False, True, True, False, True])
    ways = {"all": {"hidden": hidden}, "one": {"hidden": hidden, "layers": [1]}, "seen": {}}
    found = {}
    for name, more in ways.items():
        with AttentionCapture(tiny, inputs, **more) as capture:
            written = generate(tiny, inputs, **options)
        found[name] = written.sequences.tolist(), torch.cat(written.logits), capture
    assert found["one"][0] == found["all"][0]
    assert torch.equal(found["one"][1], found["all"][1])
    assert (found["seen"][1] - found["all"][1]).abs().max() > 1e-2
    ours, theirs = (found[name][2] for name in ("one", "all"))
    attention = attention_of(ours, ours.take(0, NEW_TOKENS))
    torch.testing.assert_close(attention, attention_of(theirs, theirs.take(0, NEW_TOKENS))[1:2])
    assert not attention[..., hidden].any()
