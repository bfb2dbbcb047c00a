"""Each adapter finds in the real transformers classes what it says is there."""

import dataclasses

import pytest
import torch
import transformers
from conftest import EVERY_FAMILY, build_tiny, picture, tiny_config, tiny_model
from torch import nn

from eyeline.adapters import ADAPTERS, adapter_of, image_grids
from eyeline.errors import PromptError, UnsupportedModelError


def test_the_architectures_of_the_paper_and_their_siblings_have_adapters():
    assert set(ADAPTERS) == set(EVERY_FAMILY)
    for family in EVERY_FAMILY:
        assert adapter_of(tiny_model(family).hf) is adapter_of(tiny_config(family)) is ADAPTERS[family]


def test_the_parts_are_those_that_a_forward_runs_in_this_order(tiny):
    adapter, hf = tiny.adapter, tiny.hf
    layers = adapter.layers(hf)
    parts = {"vision": adapter.vision_tower(hf), "text": adapter.text_model(hf)}
    for i, layer in enumerate(layers):
        parts |= {f"layer {i}": layer, f"attention {i}": adapter.self_attention(layer)}
        if (norm := adapter.attention_norm(layer)) is not None:
            parts[f"norm {i}"] = norm
    parts |= {"final norm": adapter.final_norm(hf), "head": adapter.lm_head(hf)}
    ran = []
    hooks = [
        part.register_forward_pre_hook(lambda *_, name=name: ran.append(name)) for name, part in parts.items()
    ]
    with torch.inference_mode():
        hf(**tiny.inputs(picture(), "What?"))
    for hook in hooks:
        hook.remove()
    assert ran == list(parts)
    assert len(layers) == adapter.text_config(hf).num_hidden_layers == 3
    for i, layer in enumerate(layers):
        attention = adapter.self_attention(layer)
        assert attention.layer_idx == i
        assert isinstance(attention.o_proj, nn.Linear)
        assert attention.scaling == 16**-0.5


def test_only_glm_has_a_norm_between_attention_and_the_residual_sum(tiny):
    """The residual stream after attention, built from the named parts, is what the MLP's norm receives."""
    adapter, hf = tiny.adapter, tiny.hf
    layer = adapter.layers(hf)[1]
    norm = adapter.attention_norm(layer)
    assert (norm is not None) == (adapter.family in ("glm4v", "glm46v"))
    seen = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, args: seen.update(residual=args[0])),
        adapter.self_attention(layer).o_proj.register_forward_hook(
            lambda _, args, out: seen.update(written=out)
        ),
        layer.post_attention_layernorm.register_forward_pre_hook(lambda _, args: seen.update(after=args[0])),
    ]
    with torch.inference_mode():
        hf(**tiny.inputs(picture(), "What?"))
        for hook in hooks:
            hook.remove()
        written = seen["written"] if norm is None else norm(seen["written"])
        torch.testing.assert_close(seen["residual"] + written, seen["after"])


def test_deepstack_layers_are_those_that_receive_visual_features_again(tiny):
    adapter, hf = tiny.adapter, tiny.hf
    layers = adapter.layers(hf)
    outputs, inputs = {}, {}
    hooks = []
    for i, layer in enumerate(layers):
        hooks.append(layer.register_forward_pre_hook(lambda _, args, i=i: inputs.update({i: args[0]})))
        hooks.append(layer.register_forward_hook(lambda _, args, out, i=i: outputs.update({i: out})))
    hooks.append(
        adapter.final_norm(hf).register_forward_pre_hook(lambda _, args: inputs.update({3: args[0]}))
    )
    with torch.inference_mode():
        hf(**tiny.inputs(picture(), "What?"))
    for hook in hooks:
        hook.remove()
    added = [i for i in range(len(layers)) if not torch.equal(outputs[i], inputs[i + 1])]
    assert added == list(range(adapter.deepstack_layers(hf)))
    assert bool(added) == adapter.family.startswith("qwen3_vl")


def test_image_grids_lie_where_the_placeholders_are_and_as_the_processor_cut_them(tiny):
    sizes = [(96, 64), (64, 130), (200, 90)]  # width, height
    inputs = tiny.inputs([picture(*size) for size in sizes], "Which is widest?")
    grids = image_grids(tiny.hf, inputs)
    merge = tiny.image_processor.merge_size
    assert [(grid.rows, grid.cols) for grid in grids] == [
        (rows // merge, cols // merge) for _, rows, cols in inputs["image_grid_thw"].tolist()
    ]
    assert [grid.rows < grid.cols for grid in grids] == [True, False, True]
    together = torch.cat([grid.positions for grid in grids])
    token = tiny.adapter.image_token_id(tiny.hf)
    assert together.tolist() == [i for i, t in enumerate(inputs["input_ids"][0].tolist()) if t == token]
    for grid in grids:
        assert len(grid.positions) == len(grid) == grid.rows * grid.cols
        assert (grid.positions.diff() == 1).all()
    assert grids[0].positions[-1] + 1 < grids[1].positions[0], "images are apart"


def test_cells_run_row_by_row_as_the_model_numbers_them(tiny):
    inputs = tiny.inputs([picture(200, 90), picture(64, 130)], "What?")
    positions, _ = tiny.hf.model.get_rope_index(**inputs)  # (time, row, column) of each token
    for grid in image_grids(tiny.hf, inputs):
        _, rows, cols = positions[:, 0, grid.positions]
        cells = [(row, col) for row in range(grid.rows) for col in range(grid.cols)]
        assert list(zip((rows - rows[0]).tolist(), (cols - cols[0]).tolist(), strict=True)) == cells


def test_visual_features_run_row_by_row(tiny):
    """Where cells do not look at each other, other pixels under one cell change that cell's feature alone."""
    model = build_tiny(tiny.adapter.family)
    tower = model.adapter.vision_tower(model.hf)
    for block in tower.blocks:
        nn.init.zeros_(block.attn.proj.weight)
    inputs = model.inputs(picture(200, 130), "What?")
    grid = image_grids(model.hf, inputs)[0]

    def features(pixels):
        with torch.inference_mode():
            return model.adapter.visual_features(tower(pixels, grid_thw=inputs["image_grid_thw"]), [grid])[0]

    base = features(inputs["pixel_values"])
    assert len(base) == grid.rows * grid.cols > 8
    patches = model.adapter.merge_size(model.hf) ** 2  # of a cell; the processor lays them side by side
    for cell in range(len(base)):
        pixels = inputs["pixel_values"].clone()
        pixels[cell * patches : (cell + 1) * patches] += 0.1
        assert (features(pixels) - base).abs().amax(dim=-1).nonzero()[:, 0].tolist() == [cell]


def test_the_patches_of_a_cell_are_the_pixels_at_its_place(tiny):
    """So the two tests above mean places in the image: one bright cell lights up its own patches alone."""
    rows, cols = 3, 4
    side = tiny.image_processor.patch_size * 2
    for cell in range(rows * cols):
        image = picture(cols * side, rows * side).convert("L").point(lambda _: 0).convert("RGB")
        row, col = divmod(cell, cols)
        image.paste((255, 255, 255), (col * side, row * side, (col + 1) * side, (row + 1) * side))
        inputs = tiny.inputs(image, "What?")
        assert inputs["image_grid_thw"].tolist() == [[1, rows * 2, cols * 2]]
        brightness = inputs["pixel_values"].mean(-1).view(rows * cols, 4)
        assert (brightness > 0).nonzero()[:, 0].tolist() == [cell] * 4


def test_inputs_without_their_image_tokens_are_refused(tiny):
    inputs = tiny.inputs(picture(), "What?")
    inputs["input_ids"] = inputs["input_ids"][:, -4:]
    with pytest.raises(PromptError, match=r"0 image tokens, but its images need 6"):
        image_grids(tiny.hf, inputs)
    assert image_grids(tiny.hf, {"input_ids": inputs["input_ids"]}) == []


def test_models_without_vision_without_adapter_and_without_head_are_told_apart(tiny):
    with pytest.raises(
        UnsupportedModelError,
        match=r"'qwen3' takes no images.*glm46v, glm4v, glm4v_moe, qwen2_5_vl, qwen3_vl, qwen3_vl_moe",
    ):
        adapter_of(transformers.Qwen3Config())
    with pytest.raises(
        UnsupportedModelError, match=r"No adapter for the model family 'llava'.*adapters/llava.py"
    ):
        adapter_of(transformers.LlavaConfig())
    with pytest.raises(UnsupportedModelError, match="no language-modelling head"):
        adapter_of(tiny.hf.model)


def test_an_adapter_cannot_be_changed(tiny):
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny.adapter.family = "other"
