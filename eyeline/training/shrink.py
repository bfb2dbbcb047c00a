"""Cuts a larger embedded model down to the sizes of `mini.build_model`, as a checkpoint to train on from.

Of each feed-forward layer the neurons that write most stay; of the DeepStack mergers those of the blocks that still
have one; a patch embedding of two equal frames becomes one of their sum.
"""

import json
from pathlib import Path
from typing import Any

import click
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen3VLForConditionalGeneration

from eyeline.scenes import FAMILIES, draw
from eyeline.training.mini import STAGES, build_model, embed_still, language_loss, see
from eyeline.training.mini_data import HEADS, collate


def written(model: Qwen3VLForConditionalGeneration, tokenizer, scenes: int = 60) -> dict[str, Tensor]:
    """For every layer that ends a feed-forward block, by name: how much each of its inputs writes on drawn scenes.

    The root mean square of the input times the norm of its column.
    """
    squares: dict[str, Tensor] = {}
    handles = []
    for name, layer in model.named_modules():
        if name.endswith(("mlp.down_proj", "mlp.linear_fc2")):
            squares[name] = torch.zeros(layer.in_features)  # pyright: ignore[reportArgumentType, reportCallIssue]

            def add(_, inputs, name=name):
                squares[name] += inputs[0].flatten(0, -2).square().mean(0)

            handles.append(layer.register_forward_pre_hook(add))
    with torch.inference_mode():
        for number in range(scenes):
            scene = draw(list(FAMILIES)[number % len(FAMILIES)], 6_900_000 + number)
            batch = collate([scene], tokenizer, 2)
            language_loss(model, batch, see(model, batch)[0])
    for handle in handles:
        handle.remove()
    return {
        name: each.sqrt() * model.get_submodule(name).weight.norm(dim=0)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
        for name, each in squares.items()
    }


def cut(parent: Qwen3VLForConditionalGeneration, child: Qwen3VLForConditionalGeneration, tokenizer) -> None:
    """Loads what fits of the parent into the child."""
    importance = written(parent, tokenizer)
    tensors = parent.state_dict()
    before: Any = parent.config.vision_config
    after: Any = child.config.vision_config
    kept_mergers = [before.deepstack_visual_indexes.index(block) for block in after.deepstack_visual_indexes]
    result = {}
    for name, target in child.state_dict().items():
        source = name
        if ".deepstack_merger_list." in name:
            tower, merger = name.split(".deepstack_merger_list.")
            index, rest = merger.split(".", 1)
            source = f"{tower}.deepstack_merger_list.{kept_mergers[int(index)]}.{rest}"
        value = tensors[source]
        if name.endswith("patch_embed.proj.weight") and value.shape != target.shape:
            value = value.sum(2, keepdim=True)
        block, _, part = name.rpartition(".mlp.")
        if block and value.shape != target.shape:
            last = (
                f"{block}.mlp.down_proj"
                if "gate" in part or "up" in part or "down" in part
                else f"{block}.mlp.linear_fc2"
            )
            axis = 1 if f"{block}.mlp.{part}" == f"{last}.weight" else 0
            keep = importance[last].topk(target.shape[axis]).indices.sort().values
            value = value.index_select(axis, keep)
        result[name] = value.clone()
    child.load_state_dict(result)


@click.command()
@click.argument("parent", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of checkpoints to begin.")
def main(parent: Path, out: Path) -> None:
    """Begin a training folder with the model folder PARENT, cut down."""
    torch.manual_seed(0)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(parent)
    large = Qwen3VLForConditionalGeneration.from_pretrained(parent, dtype=torch.float32).eval()
    small = build_model(tokenizer)
    embed_still(large)
    cut(large, small, tokenizer)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out)
    stage = next(stage.name for stage in STAGES if stage.questions)
    save_file(
        {name: value.contiguous() for name, value in small.state_dict().items()},
        out / f"model.{stage}.0.safetensors",
    )
    save_file(dict(nn.Linear(256, sum(HEADS.values())).state_dict()), out / f"heads.{stage}.0.safetensors")
    (out / "place.json").write_text(json.dumps({"stage": stage, "step": 0}))
    click.echo(f"{sum(value.numel() for value in small.state_dict().values()):,} parameters")


if __name__ == "__main__":
    main()
