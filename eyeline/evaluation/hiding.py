"""Which way of hiding a region is the right counterfactual? All ways on the same traces, regions and subsets.

How far each takes the model off its distribution is read off what should not change: tokens that the text alone gives away
(a pass without the image predicts them), and regions in which nothing is. Hiding everything is held against a prompt
without an image. The leak is what the vision tower has already carried from a hidden region into other visual tokens.
"""

import csv
import time
from collections import defaultdict
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import click
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from scipy.stats import rankdata
from torch import Tensor

from eyeline.ablation import METHODS, ablate, hidden_patches, leak
from eyeline.attention import AttentionCapture
from eyeline.evaluation.metrics import bootstrap, pointing, shared_areas
from eyeline.examples import Example, read_examples
from eyeline.images import open_image
from eyeline.model import Inputs, Model, load
from eyeline.regions import Regions, regions_for
from eyeline.spans import Span
from eyeline.training.collect import ALONE, WHOLE, Settings, draw_subsets, written_trace
from eyeline.training.fit import MIN_SPREAD, pearson

GIVEN_AWAY = 0.9  # probability of a token without the image, from which on the text alone gives it away
EMPTY = 0.02  # standard deviation of a region's pixels, of 1, up to which nothing is in it
MOST_PIXELS = 2**22  # of an image, to look for empty regions in


def compare(model: Model, example: Example, settings: Settings) -> dict[tuple[str, str], float]:
    """(way of hiding, measure) -> value for one example; a measure that it cannot give is left out."""
    picture = open_image(example.image)
    inputs = model.inputs(picture, example.prompt)
    ids, spans = written_trace(model, inputs, settings.max_new_tokens)
    trace = torch.tensor(ids, device=model.device)
    with torch.inference_mode(), AttentionCapture(model, inputs) as capture:
        model.hf.model(**inputs, use_cache=False)
    assert capture.vision_features is not None
    regions = regions_for([picture], capture.grids, capture.vision_features, settings.regions, settings.seed)
    subsets, rates = draw_subsets(regions.count, settings, example.id)
    hidden = hidden_patches(subsets, regions.of_patch)
    without = log_probs_without_image(model, example.prompt, trace)
    given_away = without > np.log(GIVEN_AWAY)
    empty = empty_regions(picture, regions)
    found: dict[tuple[str, str], float] = {}
    by_way: dict[str, Tensor] = {}
    for way in METHODS:
        began = time.perf_counter()
        measured = ablate(model, inputs, trace, hidden, way)  # pyright: ignore[reportArgumentType]
        found[way, "ms_per_subset"] = 1000 * (time.perf_counter() - began) / len(hidden)
        tokens = measured.drops.cpu()
        drops = torch.stack([tokens[:, span.start : span.end].sum(1) for span in spans])
        by_way[way] = drops
        alone, random = drops[:, rates == ALONE], drops[:, rates > 0]
        if given_away.any():
            found[way, "drop_of_given_tokens"] = float(tokens[rates > 0][:, given_away].abs().mean())
        left = measured.log_probs.cpu() - tokens[rates == WHOLE][0]
        found[way, "all_hidden_from_no_image"] = float((left - without).abs().mean())
        if empty.any():
            found[way, "effect_of_empty_regions"] = float(alone[:, empty].abs().mean())
        found[way, "effect_of_regions"] = float(alone.abs().mean())
        summed = alone @ subsets[rates > 0].float().T
        varied = random.std(1) > MIN_SPREAD
        if varied.any():
            agreement = pearson(ranks(summed[varied]), ranks(random[varied])).mean()
            found[way, "lds_of_single_effects"] = float(agreement)
        pointed = hits(example, spans, alone, regions, picture)
        if pointed:
            found[way, "pointing"] = float(np.mean(pointed))
    for way, drops in by_way.items():
        found[way, "leak"] = leak(by_way["pixels"], drops)
        varied = drops[:, rates > 0].std(1) > MIN_SPREAD
        for other in by_way:
            both = varied & (by_way[other][:, rates > 0].std(1) > MIN_SPREAD)
            if both.any():
                one, two = (ranks(each[both][:, rates > 0]) for each in (drops, by_way[other]))
                found[way, f"spearman_with_{other}"] = float(pearson(one, two).mean())
    return found


def ranks(drops: Float[Tensor, "span subset"]) -> Float[Tensor, "span subset"]:
    return torch.from_numpy(rankdata(drops.numpy(), axis=1))


def log_probs_without_image(
    model: Model, prompt: str, trace_ids: Int[Tensor, " token"]
) -> Float[Tensor, " token"]:
    """Log-probs of the trace's tokens after the same question asked without any image."""
    inputs = model.inputs([], [{"role": "user", "content": prompt}])
    ids = torch.cat([inputs["input_ids"], trace_ids[None, :-1].to(model.device)], dim=1)
    before = model.hf.model.rope_deltas
    try:
        with torch.inference_mode():
            logits = model.hf(input_ids=ids, use_cache=False, logits_to_keep=len(trace_ids)).logits[0]
    finally:
        model.hf.model.rope_deltas = before
    return logits.float().log_softmax(-1)[torch.arange(len(trace_ids)), trace_ids].cpu()


def empty_regions(picture: Image.Image, regions: Regions) -> Bool[Tensor, " region"]:
    """Regions of one image whose pixels hardly differ."""
    rows, cols = regions.labels[0].shape
    side = max(1, min(32, int((MOST_PIXELS / (rows * cols)) ** 0.5)))
    pixels = np.asarray(picture.convert("RGB").resize((cols * side, rows * side))).astype(np.float32) / 255
    of_pixel = np.kron(regions.labels[0].numpy(), np.ones((side, side), dtype=np.int64))
    spreads = [float(pixels[of_pixel == region].std(0).max()) for region in range(regions.count)]
    return torch.tensor(spreads) < EMPTY


def hits(
    example: Example,
    spans: list[Span],
    alone: Float[Tensor, "span region"],
    regions: Regions,
    picture: Image.Image,
) -> list[float]:
    """For each span that reads evidence, whether its strongest region is that."""
    boxes_of = dict(zip(example.trace, example.evidence, strict=False))
    found = []
    for span, effects in zip(spans, alone, strict=True):
        boxes = boxes_of.get(span.text.strip(), ())
        if boxes and span.channel == "thinking":
            shared = shared_areas(regions.labels[0], boxes, *picture.size)
            found.append(float(pointing(effects[None], *shared)))
    return found


def naive_ms(model: Model, inputs: Inputs, trace_ids: Int[Tensor, " token"], rounds: int = 5) -> float:
    """What a subset takes in a loop that hides and runs the whole model again for each, with logits everywhere."""
    text = torch.zeros_like(trace_ids)[None]
    whole = {
        **inputs,
        "input_ids": torch.cat([inputs["input_ids"], trace_ids[None]], dim=1),
        "attention_mask": torch.cat([inputs["attention_mask"], text + 1], dim=1),
        "mm_token_type_ids": torch.cat([inputs["mm_token_type_ids"], text.int()], dim=1),
    }
    before = model.hf.model.rope_deltas
    times = []
    try:
        for _ in range(rounds):
            began = time.perf_counter()
            with torch.inference_mode():
                model.hf.model.rope_deltas = None
                model.hf(**whole, use_cache=False).logits.log_softmax(-1)
            times.append(time.perf_counter() - began)
    finally:
        model.hf.model.rope_deltas = before
    return 1000 * float(np.median(times))


def speed_up(model: Model, example: Example, settings: Settings, rounds: int = 5) -> dict[str, float]:
    """How many times faster exhaustive ablation is than the naive loop, side by side, medians; by way of hiding."""
    picture = open_image(example.image)
    inputs = model.inputs(picture, example.prompt)
    trace = torch.tensor(written_trace(model, inputs, settings.max_new_tokens)[0], device=model.device)
    with torch.inference_mode(), AttentionCapture(model, inputs) as capture:
        model.hf.model(**inputs, use_cache=False)
    assert capture.vision_features is not None
    regions = regions_for([picture], capture.grids, capture.vision_features, settings.regions, settings.seed)
    hidden = hidden_patches(torch.eye(regions.count, dtype=torch.bool), regions.of_patch)
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        times["naive"].append(naive_ms(model, inputs, trace, 1) * (len(hidden) + 1))
        for way in METHODS:
            began = time.perf_counter()
            ablate(model, inputs, trace, hidden, way)  # pyright: ignore[reportArgumentType]
            times[way].append(1000 * (time.perf_counter() - began))
    naive = float(np.median(times["naive"]))
    return {way: naive / float(np.median(times[way])) for way in METHODS}


@click.command()
@click.option("--model", "model_id", default="mini", show_default=True)
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Data folder.")
@click.option("--limit", default=50, show_default=True, help="Examples.")
@click.option("--timed", default=8, show_default=True, help="Examples on which the speed-up is measured.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="CSV to write.")
def main(model_id: str, data: Path, limit: int, timed: int, out: Path) -> None:
    """Compare all ways of hiding on the same regions, subsets and traces."""
    model, settings = load(model_id), Settings(max_new_tokens=256)
    values: Mapping[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number, example in enumerate(islice(read_examples(data), limit)):
        found = compare(model, example, settings)
        if number < timed:
            found |= {(way, "speed_up"): each for way, each in speed_up(model, example, settings).items()}
        for key, value in found.items():
            values[key][example.family].append(value)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("way", "measure", "mean", "low", "high", "images"))
        for (way, measure), families in sorted(values.items(), key=lambda each: (each[0][1], each[0][0])):
            numbers = [f"{value:.4f}" for value in bootstrap(families)]
            table.writerow((way, measure, *numbers, sum(map(len, families.values()))))
    click.echo(out.read_text())


if __name__ == "__main__":
    main()
