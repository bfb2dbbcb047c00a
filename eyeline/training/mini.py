"""Trains a miniature: a small model of a published model's class, on drawn scenes.

Its stages stand in `minis.py`. `vision` teaches the vision tower what every visual token shows, with dense labels that the
drawings know; `language` freezes its blocks and trains mergers and language model on packed questions; `all` trains everything;
`wild` goes on with scenes as people photograph them; `long` adds long scenes and all manners of asking, at constant rates;
`settle` ends with falling ones; `look` and `closer` go back to the vision tower, `again` and `last` to everything. What is
exported is a running mean of the weights. Each stage checkpoints and resumes: `python -m eyeline.training.mini --help`.
"""

import copy
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from eyeline.training.mini_data import Batches
from eyeline.training.minis import MINIS, Mini, Stage, build_image_processor, build_tokenizer
from eyeline.training.packing import Batch
from eyeline.training.practice import Practice
from eyeline.training.visual_tokens import HEADS

LOGGED = ("loss", "dense_loss", "token_accuracy", "practice_accuracy", "before_loss")
BEFORE = 3  # tokens before each one that an early layer is taught to carry on
KNOWS_BEFORE = 2  # layers after which it is to know them
BEFORE_WEIGHT = 0.2
MERGERS = ("merger", "downsample")  # parts of a vision tower that belong to the language model
MEAN_OF = 400  # steps
LABELS_ALONE = 150  # steps of training on in which new heads learn what tokens show, and teach nothing yet


def halves() -> bool:
    """Whether this CPU multiplies bfloat16; elsewhere that is far slower than float32."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def see(model: Any, batch: Batch) -> Any:
    """The vision tower's output for the batch's images."""
    return model.model.get_image_features(batch.pixels.to(torch.float32) / 127.5 - 1, batch.grids)


def repeat(seen: Any, copies: list[int]) -> Any:
    """The vision tower's output with each image as often as it stands in its sequence."""

    def each_copy(features):
        return [image for image, count in zip(features, copies, strict=True) for _ in range(count)]

    again = copy.copy(seen)
    again.pooler_output = each_copy(seen.pooler_output)
    if getattr(seen, "deepstack_features", None) is not None:
        again.deepstack_features = [each_copy(deep) for deep in seen.deepstack_features]
    return again


def embed_still(model: Any) -> None:
    """Lets the patch embedding multiply matrices: the same sum, without a 3-D convolution, which is slow on a CPU.

    So is a 2-D one that merges patches, in GLM's tower.
    """
    visual = model.model.visual
    embed = visual.patch_embed

    def forward(pixels: Tensor) -> Tensor:
        weight = embed.proj.weight.sum(2).flatten(1)  # (width, channel * patch * patch)
        return functional.linear(pixels, weight, embed.proj.bias)

    embed.forward = forward
    if (merging := getattr(visual, "downsample", None)) is not None:
        merging.forward = lambda blocks: functional.linear(
            blocks.flatten(1), merging.weight.flatten(1), merging.bias
        )


class Heads(nn.Module):
    """What is read off the model in training only: what visual tokens show, and which tokens stood before a text token."""

    def __init__(self, width: int, vocabulary: int):
        super().__init__()
        self.dense = nn.Linear(width, sum(HEADS.values()))
        self.before = nn.Linear(width, BEFORE * vocabulary)


def dense_loss(heads: Heads, features: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Mean cross-entropy of the dense labels, tokens that show something weighing more; accuracy on those."""
    losses, accuracy = [], {}
    for (name, _), logits, target in zip(
        HEADS.items(), heads.dense(features).float().split(list(HEADS.values()), 1), labels.T, strict=True
    ):
        each = functional.cross_entropy(logits, target, reduction="none")
        something = target > 0
        losses.append(0.4 * each[~something].mean() + each[something].sum() / something.sum().clamp(min=1))
        accuracy[name] = (logits.argmax(1) == target)[something].float().mean().item()
    return torch.stack(losses).mean(), accuracy


def language_loss(model: Any, batch: Batch, seen) -> tuple[Tensor, float]:
    """Weighted mean cross-entropy of the supervised tokens, and the share of them that is the model's first choice."""
    segments = batch.segments
    same = (segments[:, None, :] == segments[:, :, None]) | (segments[:, None, :] == 0)
    length = segments.shape[1]
    allowed = same & torch.ones(length, length, dtype=torch.bool).tril()
    hidden = model.model(
        input_ids=batch.ids,
        position_ids=batch.positions,
        attention_mask=allowed[:, None],
        mm_encoder_outputs={"image": repeat(seen, batch.copies)},
        use_cache=False,
    ).last_hidden_state
    return _score(model, hidden, batch)


def practice_loss(model: Any, heads: Heads, practice: Practice) -> tuple[Tensor, float, Tensor]:
    """As `language_loss`, of rows without images; and how badly an early layer knows what stood before each token.

    Looking up takes an early layer that carries on what stood before, and a later one that finds it. Neither is of use
    alone, so that they come late; with the first one taught, the second comes soon.
    """
    output: Any = model.model.language_model(
        input_ids=practice.ids, position_ids=practice.positions, use_cache=False, output_hidden_states=True
    )
    early = output.hidden_states[KNOWS_BEFORE][:, BEFORE::4]
    known = heads.before(functional.rms_norm(early, early.shape[-1:])).unflatten(-1, (BEFORE, -1)).float()
    before = torch.stack(
        [practice.ids[:, BEFORE - back : -back][:, ::4] for back in range(1, BEFORE + 1)], -1
    )
    before = before[:, : known.shape[1]]
    unknown = functional.cross_entropy(known.flatten(0, 2), before.flatten())
    return *_score(model, output.last_hidden_state, practice), unknown


def _score(model: Any, hidden: Tensor, batch: Batch | Practice) -> tuple[Tensor, float]:
    wanted = batch.weights[:, 1:] > 0
    targets, weights = batch.ids[:, 1:][wanted], batch.weights[:, 1:][wanted]
    logits = model.lm_head(hidden[:, :-1][wanted]).float()
    loss = (functional.cross_entropy(logits, targets, reduction="none") * weights).sum() / weights.sum()
    return loss, (logits.argmax(1) == targets).float().mean().item()


def in_tower(name: str) -> bool:
    """Whether a parameter of this name belongs to the vision tower, and not to the language model as mergers do."""
    return "visual." in name and not any(part in name for part in MERGERS)


def _is_trained(name: str, stage: Stage) -> bool:
    if not stage.questions:
        return name.startswith("heads") or ("visual." in name and "deepstack" not in name)
    if name.startswith("heads"):
        return stage.dense > 0
    return stage.vision_rate > 0 or not in_tower(name)


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """The matrix with its singular values pulled towards 1 (Newton-Schulz, as in Muon)."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = 3.4445 * wide + (-4.775 * gram + 2.0315 * gram @ gram) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


class Muon(torch.optim.Optimizer):
    """Muon with updates of AdamW's size, each process doing its share of the matrices, in the weights' own precision.

    torch's own works in bfloat16, which a CPU without instructions for it multiplies a hundred times slower.
    """

    def __init__(
        self, parameters: list[nn.Parameter], lr: float, momentum: float = 0.95, decay: float = 0.02
    ):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            parameters = group["params"]
            updates = []
            for index, parameter in enumerate(parameters):
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                momentum.lerp_(parameter.grad, 1 - group["momentum"])
                if index % dist.get_world_size() == dist.get_rank():
                    update = orthogonal(parameter.grad.lerp(momentum, group["momentum"]))
                else:
                    update = torch.zeros_like(parameter)
                updates.append(update.flatten())
            flat = torch.cat(updates)
            dist.all_reduce(flat)
            for parameter, update in zip(
                parameters, flat.split([each.numel() for each in parameters]), strict=True
            ):
                parameter.mul_(1 - group["lr"] * group["decay"])
                size = 0.2 * max(parameter.shape) ** 0.5
                parameter.sub_(update.view_as(parameter), alpha=group["lr"] * size)


class Optimizers:
    """Muon for the matrices inside the blocks, AdamW for the rest; one schedule."""

    def __init__(self, model: nn.Module, heads: nn.Module, stage: Stage):
        groups: dict[tuple[bool, bool, bool], list[nn.Parameter]] = {}
        for name, parameter in [*model.named_parameters(), *heads.named_parameters(prefix="heads")]:
            vision = in_tower(name)
            parameter.requires_grad_(_is_trained(name, stage))
            if parameter.requires_grad:
                matrix = parameter.ndim == 2 and ("layers." in name or "blocks." in name)
                sharpens = "q_norm" in name or "k_norm" in name
                groups.setdefault((matrix, vision, sharpens), []).append(parameter)
        self.optimizers, self.peaks, self.decay = [], [], stage.decay
        for (matrix, vision, sharpens), parameters in groups.items():
            rate = stage.vision_rate if vision else stage.rate
            if sharpens:  # queries and keys have unit size: looking one thing up takes gains well over 1
                rate *= 10
            if matrix:
                rate *= 2.5  # Muon's updates are as large as AdamW's at a fifth of its rate
                optimizer = Muon(parameters, lr=rate)
            else:
                optimizer = torch.optim.AdamW(
                    parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True
                )
            self.optimizers.append(optimizer)
            self.peaks.append(rate)

    def step(self, done: float, step: int) -> None:
        factor = min(1.0, (step + 1) / 100, (1 - done) / self.decay)
        for optimizer, peak in zip(self.optimizers, self.peaks, strict=True):
            for group in optimizer.param_groups:
                nn.utils.clip_grad_norm_(group["params"], 1.0)
                group["lr"] = peak * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        return {
            f"{index}.{number}.{key}": value
            for index, optimizer in enumerate(self.optimizers)
            for number, slots in optimizer.state_dict()["state"].items()
            for key, value in slots.items()
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        for index, optimizer in enumerate(self.optimizers):
            state = optimizer.state_dict()
            for name, value in tensors.items():
                at, number, key = name.split(".")
                if int(at) == index:
                    state["state"].setdefault(int(number), {})[key] = value
            optimizer.load_state_dict(state)


class Mean:
    """The running mean of the weights over some hundred steps: what a falling rate would give, at any time."""

    def __init__(self, model: nn.Module):
        self.weights = {name: value.clone() for name, value in model.state_dict().items()}
        self.steps = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.steps += 1
        share = max(1 / (1 + self.steps), 1 / MEAN_OF)
        values = model.state_dict()
        for name, mean in self.weights.items():
            mean.lerp_(values[name], share)


def save_checkpoint(
    folder: Path, model, heads, mean: Mean, optimizers: Optimizers, stage: Stage, step: int
) -> None:
    """Weights, optimizer state and place in training; the last whole checkpoint survives a kill at any moment."""
    parts = {
        "model": model.state_dict(), "mean": mean.weights, "heads": heads.state_dict(), "optimizer": optimizers.state(),
    }  # fmt: skip
    for name, tensors in parts.items():
        save_file(
            {key: value.contiguous() for key, value in tensors.items()},
            folder / f"{name}.{stage.name}.{step}.safetensors",
        )
    place = {"stage": stage.name, "step": step, "mean_steps": mean.steps}
    (folder / "place.new").write_text(json.dumps(place))
    (folder / "place.new").replace(folder / "place.json")
    for old in folder.glob("*.safetensors"):
        if not old.name.endswith(f".{stage.name}.{step}.safetensors"):
            old.unlink()


def share_gradients(model: nn.Module, heads: nn.Module) -> None:
    """The mean of all processes' gradients, in one message."""
    gradients = [
        parameter.grad
        for module in (model, heads)
        for parameter in module.parameters()
        if parameter.grad is not None
    ]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(
        gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True
    ):
        gradient.copy_(mean.view_as(gradient))


def begin(model: Any, mini: Mini, words: PreTrainedTokenizerFast, start: Path) -> None:
    """The weights of the model folder `start`, all of them or those that the miniature borrows."""
    theirs = load_file(start / "model.safetensors")
    if mini.borrow is None:
        model.load_state_dict(theirs)
    else:
        mini.borrow(theirs, model, PreTrainedTokenizerFast.from_pretrained(start), words)


def train(
    rank: int, name: str, folder: Path, start: Path | None, stages: list[Stage], processes: int,
    log_every: int = 20, save_every: int = 20,
) -> None:  # fmt: skip
    """Runs the stages of a miniature, from the last checkpoint in the folder where there is one; writes `log.jsonl`.

    Without a checkpoint and with `start`, a model folder, it begins with that one's weights and with the stage that is made for
    them. One process a core, one thread each: on few cores twice as fast as one process with as many threads.
    """
    mini = MINIS[name]
    torch.manual_seed(0)
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder.absolute()}/rendezvous", rank=rank, world_size=processes
    )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = mini.build(tokenizer)
    embed_still(model)
    model.set_attn_implementation({"": "sdpa", "vision_config": "eager"})  # faster to differentiate on a CPU
    heads = Heads(model.config.text_config.hidden_size, len(tokenizer))
    half = halves()
    place = json.loads((folder / "place.json").read_text()) if (folder / "place.json").exists() else None
    names = [stage.name for stage in stages]
    begins_with = (mini.begins_with if start else "") or names[0]
    if place:
        for part, module in (("model", model), ("heads", heads)):
            module.load_state_dict(load_file(folder / f"{part}.{place['stage']}.{place['step']}.safetensors"))
    elif start:
        begin(model, mini, tokenizer, start)
    mean = Mean(model)
    if place:
        mean.steps = place["mean_steps"]
        mean.weights = load_file(folder / f"mean.{place['stage']}.{place['step']}.safetensors")
    done_stages = names.index(place["stage"] if place else begins_with)
    for number, stage in enumerate(stages):
        if number < done_stages:
            continue
        optimizers = Optimizers(model, heads, stage)
        done = 0
        if place and place["stage"] == stage.name:
            done = place["step"]
            if 0 < done < stage.steps:
                optimizers.restore(load_file(folder / f"optimizer.{stage.name}.{done}.safetensors"))
        first = mini.first + sum(earlier.steps * earlier.batch for earlier in stages[:number])
        batches = Batches(
            tokenizer, first + done * stage.batch, stage.batch // processes, stage.questions, stage.practice,
            rank, processes, stage.wild, stage.long, stage.manners, mini.speech,
            stage.families or mini.families,
        )  # fmt: skip
        begun, since = time.time(), dict.fromkeys((*LOGGED, "count"), 0.0)
        for step, batch in zip(range(done, stage.steps), batches, strict=False):
            # new heads of a model that sees already learn what tokens show, and teach nothing yet
            alone = bool(start) and stage.questions > 0 and stage.name == begins_with and step < LABELS_ALONE
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                seen = see(model, batch)
                features = torch.cat(seen.pooler_output)
                dense, accuracy = dense_loss(heads, features.detach() if alone else features, batch.labels)
                loss = stage.dense * dense
                if stage.questions:
                    language, share = language_loss(model, batch, seen)
                    loss = loss + language
                    if batch.practice is not None:
                        practice, right, unknown = practice_loss(model, heads, batch.practice)
                        loss = loss + practice + BEFORE_WEIGHT * unknown
                        since["practice_accuracy"] += right
                        since["before_loss"] += unknown.item()
                    since["token_accuracy"] += share
                    since["loss"] += language.item()
                since["dense_loss"] += dense.item()
            loss.backward()
            share_gradients(model, heads)
            optimizers.step(step / stage.steps, step)
            mean.update(model)
            since["count"] += 1
            if (step + 1) % log_every == 0 and rank == 0:
                line: dict[str, Any] = {
                    "stage": stage.name, "step": step + 1, "images": (step + 1) * stage.batch,
                    **{key: since[key] / since["count"] for key in LOGGED},
                    "images_per_s": (step + 1 - done) * stage.batch / (time.time() - begun),
                }  # fmt: skip
                line["dense"] = {key: round(value, 3) for key, value in accuracy.items()}
                with (folder / "log.jsonl").open("a") as log:
                    log.write(json.dumps(line) + "\n")
                since = dict.fromkeys(since, 0.0)
            if rank == 0 and ((step + 1) % save_every == 0 or step + 1 == stage.steps):
                save_checkpoint(folder, model, heads, mean, optimizers, stage, step + 1)
    dist.destroy_process_group()


def export(name: str, folder: Path, out: Path) -> None:
    """Writes the mean of the last checkpoint as a model folder that `eyeline.load` reads, in bf16."""
    mini = MINIS[name]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    place = json.loads((folder / "place.json").read_text())
    model = mini.build(tokenizer)
    model.load_state_dict(load_file(folder / f"mean.{place['stage']}.{place['step']}.safetensors"))
    model.bfloat16().save_pretrained(out)
    tokenizer.save_pretrained(out)
    build_image_processor(mini).save_pretrained(out)


@click.command()
@click.argument("name", type=click.Choice(list(MINIS)))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of checkpoints; resumed where it has some.",
)
@click.option(
    "--export", "export_to", type=click.Path(path_type=Path), help="Write the model folder here when done."
)
@click.option(
    "--start",
    type=click.Path(exists=True, path_type=Path),
    help="Model folder whose weights it begins with.",
)
@click.option("--processes", default=2, show_default=True, help="One for each core.")
@click.option(
    "--steps", type=(str, int), multiple=True, help="Change a stage's number of steps: --steps language 8000."
)
@click.option(
    "--only-export", is_flag=True, help="Train nothing: write the model folder of the last checkpoint."
)
def main(
    name: str, out: Path, export_to: Path | None, start: Path | None, processes: int, steps: tuple[tuple[str, int], ...],
    only_export: bool,
) -> None:  # fmt: skip
    """Train a miniature, from scratch, from a model folder or from its last checkpoint."""
    mini, changed = MINIS[name], dict(steps)
    stages = [replace(stage, steps=changed.get(stage.name, stage.steps)) for stage in mini.stages]
    if not only_export:
        out.mkdir(parents=True, exist_ok=True)
        (out / "rendezvous").unlink(missing_ok=True)
        if not (out / "tokenizer.json").exists():
            words = (
                PreTrainedTokenizerFast.from_pretrained(start)
                if start and mini.borrow is None
                else build_tokenizer(mini)
            )
            words.chat_template = mini.speech.template()
            words.save_pretrained(out)
        torch.multiprocessing.spawn(train, (name, out, start, stages, processes), nprocs=processes)  # pyright: ignore[reportPrivateImportUsage]
    if export_to:
        export(name, out, export_to)


if __name__ == "__main__":
    main()
