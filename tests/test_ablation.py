"""Hiding parts of an image: the fall in log-prob of every token, in every way to hide."""

import itertools

import pytest
import torch
from conftest import CACHE, FAMILIES, build_tiny, picture, tiny_model
from PIL import Image
from slow_hiding import EXACT, random_subsets, slow_ablation, slow_log_probs, trace_of

from eyeline.ablation import CACHED_TOO, METHODS, ablate, fill_pixels, hidden_patches, leak, tokens_filled
from eyeline.errors import UnsupportedModelError
from eyeline.fills import FILLS
from eyeline.teacher_forcing import prompt_alone, see


@pytest.fixture(params=[1, 2], ids=["one image", "two images"])
def question(request, tiny):
    pictures = [picture(seed=1), picture(128, 96, seed=2)][: request.param]
    return tiny.inputs(pictures, "How many?")


@pytest.mark.parametrize("method", METHODS)
def test_every_fall_equals_its_slow_definition(tiny, question, method):
    eager = build_tiny(tiny.adapter.family)
    eager.hf.set_attn_implementation("eager")
    trace_ids = trace_of(tiny)
    patches = int(question["mm_token_type_ids"].sum())
    hidden = torch.cat([random_subsets(3, patches), torch.ones(1, patches, dtype=torch.bool)])
    result = ablate(tiny, question, trace_ids, hidden, method)
    unablated = slow_log_probs(tiny, question, trace_ids)
    slow = torch.stack([slow_ablation(tiny, eager, question, trace_ids, row, method) for row in hidden])
    torch.testing.assert_close(result.log_probs, unablated, **EXACT)
    torch.testing.assert_close(result.falls, unablated - slow, **EXACT)
    assert result.falls.abs().amax(dim=1).min() > 0.01  # every subset did something


@pytest.mark.parametrize("method", METHODS)
def test_batched_ablation_equals_one_by_one(tiny, question, method):
    trace_ids = trace_of(tiny)
    hidden = random_subsets(7, int(question["mm_token_type_ids"].sum()))
    together = ablate(tiny, question, trace_ids, hidden, method, tokens_per_batch=10**6)
    in_threes = ablate(tiny, question, trace_ids, hidden, method, tokens_per_batch=3 * 150)
    alone = torch.cat([ablate(tiny, question, trace_ids, row[None], method).falls for row in hidden])
    torch.testing.assert_close(together.falls, alone, **EXACT)
    torch.testing.assert_close(in_threes.falls, alone, **EXACT)
    torch.testing.assert_close(
        ablate(tiny, question, trace_ids, hidden, method, tokens_per_batch=1).falls, alone, **EXACT
    )


def test_what_is_cached_of_a_long_prompt_bounds_the_rows_of_a_batch(tiny, question, monkeypatch):
    trace_ids = trace_of(tiny)
    whole = question["input_ids"].shape[1] + len(trace_ids)
    rows = []
    real = METHODS["attention"]

    def watched(model, trace, watch):
        forward, length = real(model, trace, watch)
        return lambda hidden: rows.append(len(hidden)) or forward(hidden), length

    monkeypatch.setitem(METHODS, "attention", watched)
    hidden = random_subsets(12, int(question["mm_token_type_ids"].sum()))
    ablate(tiny, question, trace_ids, hidden, "attention", tokens_per_batch=whole)
    assert max(rows) <= CACHED_TOO
    assert sum(row - 1 for row in rows) == 12


@pytest.mark.parametrize("method", METHODS)
def test_hiding_nothing_changes_nothing(tiny, question, method):
    hidden = random_subsets(3, int(question["mm_token_type_ids"].sum()))
    hidden[1] = False
    falls = ablate(tiny, question, trace_of(tiny), hidden, method).falls
    assert falls[1].abs().max() < 1e-5
    assert falls[0].abs().max() > 0.01


def test_a_hidden_cell_is_a_cell_painted_in_the_images_mean_colour(tiny):
    side = 2 * tiny.hf.config.vision_config.patch_size
    colours = torch.tensor([[40, 0, 9], [80, 30, 9], [120, 60, 9], [160, 90, 9], [200, 120, 9], [0, 240, 9]])
    mean = (100, 90, 9)  # a whole number, so that painting rounds nothing
    assert colours.float().mean(dim=0).tolist() == list(mean)

    def paint(cells):
        image = Image.fromarray(cells.view(2, 3, 3).to(torch.uint8).numpy())
        return tiny.inputs(image.resize((3 * side, 2 * side), Image.Resampling.NEAREST), "Which?")

    inputs, trace_ids = paint(colours), trace_of(tiny)
    result = ablate(tiny, inputs, trace_ids, torch.eye(6, dtype=torch.bool), "pixels")
    for cell in range(6):
        painted = colours.clone()
        painted[cell] = torch.tensor(mean)
        alone = ablate(tiny, paint(painted), trace_ids, torch.zeros(0, 6, dtype=torch.bool))
        torch.testing.assert_close(result.log_probs - result.falls[cell], alone.log_probs, rtol=0, atol=1e-4)
        assert result.falls[cell].abs().max() > 1e-3


def test_filled_visual_tokens_are_the_mean_of_their_images(tiny, question):
    """Token by token; DeepStack's layers too, and the tower is as it was afterwards."""
    images = tiny.image_grids(question)
    hidden = random_subsets(1, sum(map(len, images)))[0]

    def seen():
        tower = tiny.adapter.vision_tower(tiny.hf)
        with torch.no_grad():
            output = tower(question["pixel_values"], grid_thw=question["image_grid_thw"])
        deepstack = output.deepstack_features if tiny.adapter.deepstack else []
        return [output.pooler_output.clone(), *(layer.clone() for layer in deepstack)]

    before = seen()
    with tokens_filled(tiny, question, hidden):
        filled = seen()
    assert all(map(torch.equal, before, seen()))
    assert len(filled) == 1 + tiny.adapter.deepstack_layers(tiny.hf)
    for own, other in zip(before, filled, strict=True):
        first = 0
        for image in images:
            mean = own[first : first + len(image)].mean(0)
            for cell in range(first, first + len(image)):
                torch.testing.assert_close(other[cell], mean if hidden[cell] else own[cell])
            first += len(image)


def test_what_is_hidden_does_not_show_through_an_inpainting_nor_through_the_mean_of_a_blur(tiny):
    inputs = tiny.inputs(picture(128, 96, seed=3), "Which?")
    hidden = torch.zeros(1, int(inputs["mm_token_type_ids"].sum()), dtype=torch.bool)
    hidden[0, [0, 1, 5]] = True
    rows = hidden[0].repeat_interleave(tiny.adapter.merge_size(tiny.hf) ** 2)
    other = {**inputs, "pixel_values": inputs["pixel_values"].clone()}
    other["pixel_values"][rows] = torch.randn(int(rows.sum()), inputs["pixel_values"].shape[1])
    one, two = (fill_pixels(tiny, each, hidden[0], "inpaint")["pixel_values"] for each in (inputs, other))
    assert torch.equal(one, two)
    assert torch.equal(one[~rows], inputs["pixel_values"][~rows])
    flat = {**inputs, "pixel_values": torch.full_like(inputs["pixel_values"], 0.25)}
    for method in ("inpaint", "blur", "pixels"):
        filled = fill_pixels(tiny, flat, hidden[0], method)["pixel_values"]
        torch.testing.assert_close(filled, flat["pixel_values"])


def test_hiding_one_image_leaves_the_others_pixels_alone(tiny):
    first, second, blank = picture(seed=1), picture(128, 96, seed=2), Image.new("RGB", (128, 96), "teal")
    trace_ids = trace_of(tiny)
    inputs = tiny.inputs([first, second], "How many?")
    counts = [len(image) for image in tiny.image_grids(inputs)]
    hidden = torch.tensor([[False] * counts[0] + [True] * counts[1]])
    log_probs = {}
    for name, image in {"original": second, "blank": blank}.items():
        pixels = tiny.inputs([first, image], "How many?")
        first_rows = counts[0] * tiny.adapter.merge_size(tiny.hf) ** 2
        colour = inputs["pixel_values"][first_rows:].unflatten(1, (3, -1)).mean(dim=(0, 2), keepdim=True)
        if name == "blank":  # in the second image's mean colour, processed apart from it
            pixels["pixel_values"][first_rows:].unflatten(1, (3, -1))[:] = colour
        log_probs[name] = ablate(
            tiny, pixels, trace_ids, torch.zeros(0, sum(counts), dtype=torch.bool)
        ).log_probs
    result = ablate(tiny, inputs, trace_ids, hidden)
    torch.testing.assert_close(result.falls[0], log_probs["original"] - log_probs["blank"], **EXACT)
    assert result.falls.abs().max() > 0.01


@pytest.mark.parametrize("method", METHODS)
def test_padding_and_what_an_earlier_call_left_in_the_model_change_nothing(tiny, method):
    inputs, trace_ids = tiny.inputs(picture(seed=1), "How many?"), trace_of(tiny)
    hidden = random_subsets(2, 6)
    expected = ablate(tiny, inputs, trace_ids, hidden, method)
    padding = torch.full((1, 4), tiny.tokenizer.pad_token_id)
    padded = {
        **inputs,
        "input_ids": torch.cat([padding, inputs["input_ids"]], dim=1),
        "attention_mask": torch.cat([torch.zeros_like(padding), inputs["attention_mask"]], dim=1),
        "mm_token_type_ids": torch.cat([torch.zeros_like(padding).int(), inputs["mm_token_type_ids"]], dim=1),
    }
    stale = torch.tensor([[-77]])
    tiny.hf.model.rope_deltas = stale
    try:
        result = ablate(tiny, padded, trace_ids, hidden, method)
        assert tiny.hf.model.rope_deltas is stale
    finally:
        tiny.hf.model.rope_deltas = None
    assert torch.equal(result.falls, expected.falls)


@pytest.mark.parametrize("method", METHODS)
def test_an_image_token_that_the_model_wrote_itself_is_text(tiny, method):
    inputs, trace_ids = tiny.inputs(picture(seed=1), "How many?"), trace_of(tiny)
    trace_ids[3] = tiny.adapter.image_token_id(tiny.hf)
    result = ablate(tiny, inputs, trace_ids, random_subsets(2, 6), method)
    with torch.inference_mode():  # as in decoding: prompt first, then the trace on its cache
        prompt = tiny.hf(**inputs, use_cache=True)
        positions = torch.arange(len(trace_ids)) + inputs["input_ids"].shape[1] + tiny.hf.model.rope_deltas[0]
        tiny.hf.model.rope_deltas = None
        after = tiny.hf(
            input_ids=trace_ids[None, :-1],
            **{CACHE: prompt[CACHE]},
            position_ids=positions[:-1].expand(3, 1, -1),
        ).logits[0]
    logits = torch.cat([prompt.logits[0, -1:], after])
    expected = logits.log_softmax(dim=-1)[torch.arange(len(trace_ids)), trace_ids]
    torch.testing.assert_close(result.log_probs, expected, **EXACT)


@pytest.mark.parametrize("method", METHODS)
def test_logits_in_small_chunks_give_the_same_falls(monkeypatch, method):
    model = tiny_model("qwen3_vl")
    inputs, trace_ids, hidden = (
        model.inputs(picture(seed=1), "How many?"),
        trace_of(model),
        random_subsets(3, 6),
    )
    expected = ablate(model, inputs, trace_ids, hidden, method)
    monkeypatch.setattr("eyeline.teacher_forcing.LOGITS_AT_ONCE", 1)
    torch.testing.assert_close(
        ablate(model, inputs, trace_ids, hidden, method).falls, expected.falls, **EXACT
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_a_bfloat16_model_is_ablated_in_bfloat16_with_float32_log_probs(family, method):
    model = build_tiny(family)
    exact = ablate(model, model.inputs(picture(), "How many?"), trace_of(model), random_subsets(3, 6), method)
    model.hf.to(torch.bfloat16)
    result = ablate(
        model, model.inputs(picture(), "How many?"), trace_of(model), random_subsets(3, 6), method
    )
    assert result.falls.dtype == torch.float32
    torch.testing.assert_close(result.falls, exact.falls, rtol=0, atol=0.7)
    assert torch.corrcoef(torch.stack([result.falls.flatten(), exact.falls.flatten()]))[0, 1] > 0.95


def test_falls_can_be_used_in_autograd():
    model = tiny_model("qwen3_vl")
    result = ablate(model, model.inputs(picture(), "How many?"), trace_of(model), random_subsets(2, 6))
    weight = torch.ones((), requires_grad=True)
    (result.falls * weight * result.log_probs).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_trace_and_no_subsets_give_empty_results(method):
    model = tiny_model("qwen3_vl")
    inputs = model.inputs(picture(), "How many?")
    nothing = ablate(model, inputs, torch.zeros(0, dtype=torch.long), random_subsets(2, 6), method)
    assert nothing.falls.shape == (2, 0)
    alone = ablate(model, inputs, trace_of(model), random_subsets(0, 6), method)
    assert alone.falls.shape == (0, len(alone.log_probs))
    assert len(alone.log_probs) == len(trace_of(model))


def test_attention_knockout_refuses_sliding_windows():
    model = build_tiny("qwen2_5_vl", use_sliding_window=True, sliding_window=8, max_window_layers=1)
    inputs = model.inputs(picture(), "How many?")
    with pytest.raises(UnsupportedModelError, match=r"sliding windows.*hide pixels"):
        ablate(model, inputs, trace_of(model), random_subsets(1, 6), "attention")
    assert ablate(model, inputs, trace_of(model), random_subsets(1, 6), "pixels").falls.abs().max() > 0


def test_a_subset_of_regions_hides_the_cells_of_each():
    subsets = torch.tensor([[True, False, True], [False, False, False]])
    hidden = hidden_patches(subsets, torch.tensor([2, 1, 0, 1]))
    assert hidden.tolist() == [[True, False, True, False], [False] * 4]


def test_leak_is_the_share_of_the_pixels_effect_that_knockout_misses():
    pixels = torch.tensor([1.0, -2.0, 3.0])
    assert leak(pixels, pixels) == pytest.approx(0)
    assert leak(pixels, torch.zeros(3)) == pytest.approx(1)
    assert leak(pixels, pixels / 4) == pytest.approx(0.75)
    assert leak(torch.zeros(3), pixels) == 0


@pytest.mark.parametrize("method", METHODS)
def test_who_watches_is_shown_what_the_tower_makes_of_every_batch_the_unablated_image_first(tiny, method):
    inputs, trace_ids = tiny.inputs(picture(seed=1), "How many?"), trace_of(tiny)
    hidden, shown = random_subsets(5, 6), []
    expected = ablate(tiny, inputs, trace_ids, hidden, method)
    at_once = 3 * (inputs["input_ids"].shape[1] + len(trace_ids))  # two subsets beside the unablated image
    result = ablate(tiny, inputs, trace_ids, hidden, method, at_once, watch=shown.append)
    torch.testing.assert_close(result.falls, expected.falls, **EXACT)
    if method not in FILLS:
        assert shown == []
        return
    assert [len(each.features) for each in shown] == [3, 3, 2]
    with torch.inference_mode():
        prompt, ablated = prompt_alone(tiny, inputs), iter(hidden)
        for vision in shown:
            rows = [None, *itertools.islice(ablated, len(vision.features) - 1)]
            for at, row in enumerate(rows):
                pixels = inputs if row is None else fill_pixels(tiny, inputs, row, method)
                alone = see(tiny, prompt, pixels["pixel_values"][None])
                layers = zip(
                    (vision.features, *vision.deepstack), (alone.features, *alone.deepstack), strict=True
                )
                for together, one in layers:
                    torch.testing.assert_close(together[at], one[0], rtol=1e-3, atol=1e-4)
