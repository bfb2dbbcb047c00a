"""An image read again without each region, against whole readings in which all other tokens are held to what they were."""

import threading

import pytest
import torch
from conftest import build_tiny, tiny_model
from slow_hiding import slow_pixels
from test_features import trace_of
from test_leak import asked

from eyeline import leak, rereading
from eyeline.ablation import read_trace
from eyeline.capture import AttentionCapture
from eyeline.errors import UnsupportedModelError
from eyeline.features import likeliest_of, read_written
from eyeline.leak import fill_regions
from eyeline.rereading import read_again, taken_away
from eyeline.teacher_forcing import prompt_alone, read, see, teacher_force
from eyeline.writing import output_of

LAYERS = (0, 1, 2)


def slow_reading(model, inputs, regions, region, patches):
    """(layer, kv_head, patch, dim) keys and values of a whole reading with the region's pixels filled.

    Only `patches` are read anew: before each layer all others are put back to what they are with nothing filled.
    """
    prompt = prompt_alone(model, inputs)
    filled = slow_pixels(model, inputs, regions.of_patch == region)
    held = torch.ones(prompt.ids.shape[1], dtype=torch.bool)
    held[prompt.patches[patches]] = False
    states, layers = [], model.adapter.layers(model.hf)
    with torch.inference_mode():

        def remember(_, args, kwargs):
            states.append((args[0] if args else kwargs["hidden_states"]).clone())

        def put_back(number):
            def hook(_, args, kwargs):
                entered = args[0] if args else kwargs["hidden_states"]
                entered[:, held] = states[number][:, held]

            return hook

        for each in (lambda _: remember, put_back):
            hooks = [
                layer.register_forward_pre_hook(each(number), with_kwargs=True)
                for number, layer in enumerate(layers)
            ]
            pixels = prompt.pixel_values if each is not put_back else filled
            _, cache = read(model, prompt, see(model, prompt, pixels[None]), 1, use_cache=True)
            for hook in hooks:
                hook.remove()
    return (
        torch.stack([layer.keys[0, :, prompt.patches] for layer in cache.layers]),
        torch.stack([layer.values[0, :, prompt.patches] for layer in cache.layers]),
    )


@torch.inference_mode()
def slow_change(model, inputs, trace_ids, regions, hiding="pixels"):
    """The feature `change`: attention to everything again, with the image's keys and values as they would be.

    (layer, head, token, region), and (layer, head, token, patch): what of a region's lies in each of its own tokens.
    """
    trace = teacher_force(model, inputs, trace_ids)
    with AttentionCapture(model, inputs) as capture:
        read_trace(model, inputs, trace_ids)
        steps = capture.take(0, len(trace_ids))
    _, cache = read(model, trace, see(model, trace, trace.pixel_values[None]), 1, use_cache=True)
    odds = read_written(model, steps.hidden, likeliest_of(model, steps), trace_ids).odds
    heads = steps.queries.shape[1]
    found = torch.zeros(*steps.queries.shape[:3], regions.count)
    cells = torch.zeros(*steps.queries.shape[:3], len(trace.patches))
    rows = trace.prompt_length - 1 + torch.arange(len(trace_ids))
    later = torch.arange(trace.ids.shape[1]) > rows[:, None]
    everything = torch.arange(len(trace.patches))
    for region in range(regions.count):
        own = regions.of_patch == region
        if hiding == "pixels":
            keys, values = slow_reading(model, inputs, regions, region, everything)
        for number, layer in enumerate(cache.layers):
            weight = output_of(model, number).weight()
            worth = torch.einsum("whd,tw->htd", weight.unflatten(1, (heads, -1)), odds)
            if steps.attention_rms is not None:
                worth = worth / steps.attention_rms[number][:, None]
            whole, total = [], None
            for changed in (False, True):
                k, v, hidden = layer.keys[0].clone(), layer.values[0].clone(), later.clone()
                if changed and hiding == "pixels":
                    k[:, trace.patches], v[:, trace.patches] = keys[number], values[number]
                elif changed:
                    hidden[:, trace.patches[own]] = True
                k, v = (each.repeat_interleave(heads // len(each), 0) for each in (k, v))
                scores = (steps.queries[number] @ k.transpose(1, 2) * capture.scaling).masked_fill(
                    hidden, -torch.inf
                )
                total = scores.logsumexp(-1, keepdim=True) if total is None else total
                of_each = torch.einsum("htd,hpd->htp", worth, v)
                whole.append((scores.softmax(-1) * of_each).sum(-1))
                at = ((scores - total).exp() * of_each)[..., trace.patches[own]]
                cells[number, :, :, own] += -at if changed else at
            found[number, :, :, region] = whole[0] - whole[1]
    return found, cells


@pytest.mark.parametrize("at_most", [0, 3, 99])
def test_tokens_that_a_region_moves_are_read_as_a_whole_reading_gives_them_with_all_others_held(
    tiny, at_most, monkeypatch
):
    inputs, regions = asked(tiny)
    monkeypatch.setattr(leak, "READ_AGAIN", at_most * regions.count)
    fills = fill_regions(tiny, inputs, regions)
    slow = [slow_reading(tiny, inputs, regions, region, fill.patches) for region, fill in enumerate(fills)]
    for positions in (1, 100, 10**6):  # rows of one fill each; some; all at once
        monkeypatch.setattr(rereading, "POSITIONS_AT_ONCE", positions)
        found = read_again(tiny, inputs, regions, fills, LAYERS)
        assert len(found.patch) == sum(len(fill.patches) for fill in fills)
        for region, (fill, (keys, values)) in enumerate(zip(fills, slow, strict=True)):
            mine = found.region == region
            assert found.patch[mine].tolist() == fill.patches.tolist()
            close = {"rtol": 1e-3, "atol": 1e-4}
            torch.testing.assert_close(found.keys[:, :, mine], keys[:, :, fill.patches], **close)
            torch.testing.assert_close(found.values[:, :, mine], values[:, :, fill.patches], **close)


def test_some_layers_are_those_among_all(tiny):
    inputs, regions = asked(tiny)
    fills = fill_regions(tiny, inputs, regions)
    every, some = (read_again(tiny, inputs, regions, fills, layers) for layers in (LAYERS, (0, 2)))
    assert torch.equal(some.keys, every.keys[[0, 2]])
    assert torch.equal(some.values, every.values[[0, 2]])


def test_of_regions_that_were_filled_together_each_has_its_own_tokens(tiny, monkeypatch):
    inputs, regions = asked(tiny)
    monkeypatch.setattr(leak, "EXACT", 0)
    monkeypatch.setattr(leak, "GROUPS", 4)
    found = read_again(tiny, inputs, regions, fill_regions(tiny, inputs, regions), LAYERS)
    assert sorted(found.patch.tolist()) == list(range(len(regions.of_patch)))
    assert torch.equal(found.region, regions.of_patch[found.patch])
    assert torch.equal(found.patch[found.own(regions.of_patch)], torch.arange(len(regions.of_patch)))


def test_sums_over_the_tokens_of_each_region_are_those_of_its_pairs(tiny):
    inputs, regions = asked(tiny)
    without = read_again(tiny, inputs, regions, fill_regions(tiny, inputs, regions), LAYERS)
    rng = torch.Generator().manual_seed(1)
    of_patches, of_pairs = (
        torch.randn(2, len(regions.of_patch), generator=rng),
        torch.randn(2, len(without.patch)),
    )
    for region in range(regions.count):
        mine = without.region == region
        expected = of_patches[:, without.patch[mine]].sum(1)
        torch.testing.assert_close(without.summed(of_patches)[:, region], expected)
        torch.testing.assert_close(without.by_region(of_pairs)[:, region], of_pairs[:, mine].sum(1))


def test_without_fills_or_in_sliding_windows_a_regions_own_tokens_are_taken_away():
    model = build_tiny("qwen2_5_vl", use_sliding_window=True, sliding_window=64, max_window_layers=1)
    for of, inputs, regions, some in (
        (tiny_model("qwen3_vl"), *asked(tiny_model("qwen3_vl")), False),
        (model, *asked(model), True),
    ):
        fills = fill_regions(of, inputs, regions) if some else []
        found, expected = (
            read_again(of, inputs, regions, fills, LAYERS),
            taken_away(regions.of_patch, regions.count),
        )
        assert found.keys is found.values is None
        assert torch.equal(found.region, expected.region)
        assert torch.equal(found.patch, expected.patch)


def test_a_kernel_whose_masks_cannot_be_set_is_refused(monkeypatch):
    model = build_tiny("qwen3_vl")
    inputs, regions = asked(model)
    fills = fill_regions(model, inputs, regions)
    monkeypatch.setattr(model.hf.config.text_config, "_attn_implementation_internal", "flash_attention_2")
    with pytest.raises(UnsupportedModelError, match=r"flash_attention_2 has none.*attn_implementation=sdpa"):
        read_again(model, inputs, regions, fills, LAYERS)


def test_another_threads_capture_records_nothing_of_what_is_read_again(tiny):
    inputs, regions = asked(tiny)
    fills, ids = fill_regions(tiny, inputs, regions), trace_of(tiny)
    expected = read_again(tiny, inputs, regions, fills, LAYERS)
    with torch.inference_mode(), AttentionCapture(tiny, inputs) as capture:
        read_trace(tiny, inputs, ids)
        keys, pending, found = capture.image_columns(slice(None))[0].clone(), capture.pending_bytes, []
        worker = threading.Thread(
            target=lambda: found.append(read_again(tiny, inputs, regions, fills, LAYERS))
        )
        worker.start()
        worker.join()
        assert capture.pending_bytes == pending
        assert torch.equal(capture.image_columns(slice(None))[0], keys)
    torch.testing.assert_close(found[0].keys, expected.keys, rtol=1e-3, atol=1e-4)
