"""Log-probs with parts of an image hidden, by their slow definition, and traces to ask it about."""

import itertools

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from eyeline.ablation import tokens_filled

EXACT = {"rtol": 0, "atol": 5e-5}  # nats; float32 rounding over three layers


def trace_of(model, text="so the bar is 3.", seed=1):
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    extra = torch.randint(0, 200, (5,), generator=torch.Generator().manual_seed(seed))
    return torch.cat([torch.tensor(ids), extra])


def random_subsets(count, patches, seed=0):
    return torch.rand(count, patches, generator=torch.Generator().manual_seed(seed)) < 0.5


def extended(model, inputs, trace_ids):
    """The inputs of one ordinary forward over prompt and trace."""
    text = torch.zeros(1, len(trace_ids), dtype=torch.long)
    return {
        **inputs,
        "input_ids": torch.cat([inputs["input_ids"], trace_ids[None]], dim=1),
        "attention_mask": torch.cat([inputs["attention_mask"], text + 1], dim=1),
        "mm_token_type_ids": torch.cat([inputs["mm_token_type_ids"], text.int()], dim=1),
    }


def slow_log_probs(model, inputs, trace_ids, **replaced):
    """log_softmax of the model's own logits, one prompt, one pass."""
    with torch.inference_mode():
        model.hf.model.rope_deltas = None
        logits = model.hf(**{**extended(model, inputs, trace_ids), **replaced}, use_cache=False).logits[0]
        model.hf.model.rope_deltas = None
    predicting = logits[inputs["input_ids"].shape[1] - 1 : -1]
    return predicting.log_softmax(dim=-1)[torch.arange(len(trace_ids)), trace_ids]


def slow_pictures(model, inputs):
    """Every image out of the rows, pixel by pixel: (y, x, channel)."""
    side, merge = model.hf.config.vision_config.patch_size, model.adapter.merge_size(model.hf)
    pictures, row = [], 0
    for image in model.image_grids(inputs):
        found = np.zeros((image.rows * merge * side, image.cols * merge * side, 3))
        for cell, part in itertools.product(range(len(image)), range(merge**2)):
            top = (cell // image.cols * merge + part // merge) * side
            left = (cell % image.cols * merge + part % merge) * side
            values = inputs["pixel_values"][row].view(3, -1, side, side)[:, 0].numpy()
            found[top : top + side, left : left + side] = values.transpose(1, 2, 0)
            row += 1
        pictures.append(found)
    return pictures


def slow_rows(model, inputs, pictures):
    """`pixel_values` of pictures, pixel by pixel."""
    side, merge = model.hf.config.vision_config.patch_size, model.adapter.merge_size(model.hf)
    rows = inputs["pixel_values"].clone()
    row = 0
    for drawn, image in zip(pictures, model.image_grids(inputs), strict=True):
        for cell, part in itertools.product(range(len(image)), range(merge**2)):
            top = (cell // image.cols * merge + part // merge) * side
            left = (cell % image.cols * merge + part % merge) * side
            values = torch.from_numpy(drawn[top : top + side, left : left + side].transpose(2, 0, 1))
            rows[row].view(3, -1, side, side)[:] = values[:, None]
            row += 1
    return rows


def slow_blur(model, inputs, hidden):
    """SciPy's Gaussian of one cell's side, weighed by what lies inside the image."""
    pictures = slow_pictures(model, inputs)
    blurred = []
    for drawn, image in zip(pictures, model.image_grids(inputs), strict=True):
        sigma = drawn.shape[0] // image.rows

        def smooth(values, sigma=sigma):
            return gaussian_filter(values, (sigma, sigma, 0), mode="constant", truncate=3)

        blurred.append(smooth(drawn) / smooth(np.ones_like(drawn)))
    rows = slow_rows(model, inputs, blurred)
    return torch.where(
        hidden.repeat_interleave(model.adapter.merge_size(model.hf) ** 2)[:, None],
        rows,
        inputs["pixel_values"],
    )


def slow_inpaint(model, inputs, hidden):
    """Each hidden pixel from the smallest square of the pyramid in which something is seen, smoothed on the way back."""
    filled, first = [], 0
    for drawn, image in zip(slow_pictures(model, inputs), model.image_grids(inputs), strict=True):
        seen = ~hidden[first : first + len(image)].view(image.rows, image.cols).numpy()
        first += len(image)
        side = drawn.shape[0] // image.rows
        weight = np.kron(seen, np.ones((side, side)))[..., None]
        filled.append(slow_pull_push(drawn * weight, weight))
    return slow_rows(model, inputs, filled)


def slow_pull_push(values, weight):
    height, width = values.shape[:2]
    if min(height, width) <= 1:
        mean = values.sum((0, 1)) / max(weight.sum(), 1e-6)
        return np.where(weight > 0, values / np.maximum(weight, 1e-6), mean)
    half = [np.zeros(((height + 1) // 2, (width + 1) // 2, each.shape[2])) for each in (values, weight)]
    for y, x in itertools.product(range(half[0].shape[0]), range(half[0].shape[1])):
        for whole, part in zip((values, weight), half, strict=True):
            part[y, x] = whole[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((0, 1))
    behind = torch.from_numpy(slow_pull_push(*half).transpose(2, 0, 1))[None]
    behind = functional.interpolate(behind, (height, width), mode="bilinear")[0].numpy().transpose(1, 2, 0)
    return np.where(weight > 0, values / np.maximum(weight, 1e-6), behind)


def slow_pixels(model, inputs, hidden):
    """Cell by cell, patch by patch, channel by channel."""
    pixels = inputs["pixel_values"].clone()
    patches_per_cell = model.adapter.merge_size(model.hf) ** 2
    first_cell = 0
    for image in model.image_grids(inputs):
        rows = slice(first_cell * patches_per_cell, (first_cell + len(image)) * patches_per_cell)
        original = inputs["pixel_values"][rows]
        width = original.shape[1] // 3
        means = [original[:, channel * width : (channel + 1) * width].mean() for channel in range(3)]
        for cell in range(first_cell, first_cell + len(image)):
            if hidden[cell]:
                for row in range(cell * patches_per_cell, (cell + 1) * patches_per_cell):
                    for channel in range(3):
                        pixels[row, channel * width : (channel + 1) * width] = means[channel]
        first_cell += len(image)
    return pixels


def slow_mask(model, inputs, hidden, length):
    """Query by query, key by key: additive, (1, 1, query, key)."""
    blocked_after = {}
    cell = 0
    for image in model.image_grids(inputs):
        for position in image.positions.tolist():
            if hidden[cell]:
                blocked_after[position] = int(image.positions.max())
            cell += 1
    mask = torch.zeros(1, 1, length, length)
    for query in range(length):
        for key in range(length):
            if key > query or query > blocked_after.get(key, length):
                mask[0, 0, query, key] = torch.finfo(torch.float32).min
    return mask


def slow_ablation(model, eager, inputs, trace_ids, hidden, method):
    if method == "tokens":
        with tokens_filled(model, inputs, hidden):
            return slow_log_probs(model, inputs, trace_ids)
    if method != "attention":
        filled = {"pixels": slow_pixels, "blur": slow_blur, "inpaint": slow_inpaint}[method](
            model, inputs, hidden
        )
        return slow_log_probs(model, inputs, trace_ids, pixel_values=filled)
    full = extended(model, inputs, trace_ids)
    positions, _ = model.hf.model.get_rope_index(
        full["input_ids"],
        mm_token_type_ids=full["mm_token_type_ids"],
        image_grid_thw=full["image_grid_thw"],
    )
    mask = slow_mask(model, inputs, hidden, full["input_ids"].shape[1])
    return slow_log_probs(eager, inputs, trace_ids, attention_mask=mask, position_ids=positions)
