"""Which way of hiding a region is the right counterfactual? All ways on the same traces, regions and subsets.

How far each takes the model off its distribution is read off what should not change: tokens that the text alone gives away
(a pass without the image predicts them), and regions in which nothing is. Hiding everything is held against a prompt
without an image. The leak is what a way does less than the mean colour does: what the vision
tower has already carried from a hidden region into other visual tokens, and also what the colour adds of its own.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import click
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from eyeline import load
from eyeline.ablation import METHODS, ablate, by_span, hidden_patches, leak
from eyeline.evaluation.command_options import DATA, MODEL, TABLE
from eyeline.evaluation.evaluate import find_evidence
from eyeline.evaluation.meter import clock
from eyeline.evaluation.results import write_csv, writing
from eyeline.evaluation.table import hits
from eyeline.examples import Example, read_examples
from eyeline.metrics import bootstrap, joint, lds, spearman, varies
from eyeline.model import Inputs, Model, rope_deltas_kept
from eyeline.regions import Regions
from eyeline.teacher_forcing import continued
from eyeline.training.collect import (
    ALONE,
    WHOLE,
    Answered,
    Settings,
    answer,
    draw_subsets,
    regions_of,
)

GIVEN_AWAY = 0.9  # probability of a token without the image, from which on the text alone gives it away
EMPTY = 0.02  # standard deviation of a region's pixels, of 1, up to which nothing is in it
MOST_PIXELS = 2**22  # of an image, to look for empty regions in


@dataclass(frozen=True, slots=True)
class Row:
    """One measure of one way of hiding, with its 95 % interval over images; None where too few were measured."""

    way: str
    measure: str
    mean: float
    low: float | None
    high: float | None
    images: int


def compare(
    model: Model, example: Example, own: Answered, regions: Regions, settings: Settings
) -> dict[tuple[str, str], float]:
    """(way of hiding, measure) -> value for one example; a measure that it cannot give is left out."""
    subsets, rates = draw_subsets(regions.count, settings, example.id)
    hidden = hidden_patches(subsets, regions.of_patch)
    alone, random = rates == ALONE, rates > 0
    without = log_probs_without_image(model, example.prompt, own.ids)
    given_away = without > np.log(GIVEN_AWAY)
    empty = empty_regions(own.pictures[0], regions)
    evidence = find_evidence(example, own.spans, regions.labels[0], own.pictures[0].size)
    found: dict[tuple[str, str], float] = {}
    by_way: dict[str, Tensor] = {}
    for way in METHODS:
        began = clock(model)
        measured = ablate(model, own.inputs, own.ids, hidden, way)  # pyright: ignore[reportArgumentType]
        found[way, "ms_per_subset"] = 1000 * (clock(model) - began) / len(hidden)
        tokens = measured.falls.cpu()
        falls = by_way[way] = by_span(tokens, own.spans)
        if given_away.any():
            found[way, "drop_of_given_tokens"] = float(tokens[random][:, given_away].abs().mean())
        left = measured.log_probs.cpu() - tokens[rates == WHOLE][0]
        found[way, "all_hidden_from_no_image"] = float((left - without).abs().mean())
        if empty.any():
            found[way, "effect_of_empty_regions"] = float(falls[:, alone][:, empty].abs().mean())
        found[way, "effect_of_regions"] = float(falls[:, alone].abs().mean())
        varied = varies(falls[:, random])
        if varied.any():
            of_spans = lds(joint(falls[varied][:, alone], subsets[random]), falls[varied][:, random])
            found[way, "lds_of_single_effects"] = float(of_spans.mean())
        if evidence:
            found[way, "pointing"] = float(np.mean(hits(evidence, falls[:, alone])))
    for way, falls in by_way.items():
        found[way, "leak"] = leak(by_way["pixels"], falls)
        for other, others in by_way.items():
            both = varies(falls[:, random]) & varies(others[:, random])
            if both.any():
                of_spans = spearman(falls[both][:, random], others[both][:, random])
                found[way, f"spearman_with_{other}"] = float(of_spans.mean())
    return found


def log_probs_without_image(
    model: Model, prompt: str, trace_ids: Int[Tensor, " token"]
) -> Float[Tensor, " token"]:
    """Log-probs of the trace's tokens after the same question asked without any image."""
    inputs = model.inputs([], [{"role": "user", "content": prompt}])
    ids = torch.cat([inputs["input_ids"], trace_ids[None, :-1].to(model.device)], dim=1)
    with torch.inference_mode(), rope_deltas_kept(model):
        logits = model.hf(input_ids=ids, use_cache=False, logits_to_keep=len(trace_ids)).logits[0]
    return logits.float().log_softmax(-1)[torch.arange(len(trace_ids)), trace_ids].cpu()


def empty_regions(picture: Image.Image, regions: Regions) -> Bool[Tensor, " region"]:
    """Regions of one image whose pixels hardly differ."""
    rows, cols = regions.labels[0].shape
    side = max(1, min(32, int((MOST_PIXELS / (rows * cols)) ** 0.5)))
    pixels = np.asarray(picture.convert("RGB").resize((cols * side, rows * side))).astype(np.float32) / 255
    of_pixel = np.kron(regions.labels[0].numpy(), np.ones((side, side), dtype=np.int64))
    spreads = [float(pixels[of_pixel == region].std(0).max()) for region in range(regions.count)]
    return torch.tensor(spreads) < EMPTY


def naive_ms(model: Model, inputs: Inputs) -> float:
    """What a subset takes in a loop that hides and runs the whole model again for each, with logits everywhere."""
    began = clock(model)
    with torch.inference_mode(), rope_deltas_kept(model):
        model.hf.model.rope_deltas = None
        model.hf(**inputs, use_cache=False).logits.log_softmax(-1)
    return 1000 * (clock(model) - began)


def speed_up(model: Model, own: Answered, regions: Regions, rounds: int = 5) -> dict[str, float]:
    """How many times faster exhaustive ablation is than the naive loop, side by side, medians; by way of hiding."""
    hidden = hidden_patches(torch.eye(regions.count, dtype=torch.bool), regions.of_patch)
    whole = continued(own.inputs, own.ids)
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        times["naive"].append(naive_ms(model, whole) * (len(hidden) + 1))
        for way in METHODS:
            began = clock(model)
            ablate(model, own.inputs, own.ids, hidden, way)  # pyright: ignore[reportArgumentType]
            times[way].append(1000 * (clock(model) - began))
    naive = float(np.median(times["naive"]))
    return {way: naive / float(np.median(times[way])) for way in METHODS}


@click.command()
@MODEL
@DATA
@click.option("--limit", default=50, show_default=True, help="Examples.")
@click.option("--timed", default=8, show_default=True, help="Examples on which the speed-up is measured.")
@TABLE
def main(model_id: str, data: Path, limit: int, timed: int, out: Path) -> None:
    """Compare all ways of hiding on the same regions, subsets and traces."""
    with writing(out, figure=False):
        model, settings = load(model_id), Settings(max_new_tokens=256)
        values: Mapping[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for number, example in enumerate(islice(read_examples(data), limit)):
            own = answer(model, example, settings.max_new_tokens, settings.max_spans)
            regions = regions_of(model, own.pictures, own.inputs, settings.regions, settings.seed)
            found = compare(model, example, own, regions, settings)
            if number < timed:
                found |= {(way, "speed_up"): each for way, each in speed_up(model, own, regions).items()}
            for key, value in found.items():
                values[key][example.family].append(value)
        ordered = sorted(values.items(), key=lambda each: (each[0][1], each[0][0]))
        rows = [
            Row(way, measure, *bootstrap(families), sum(map(len, families.values())))
            for (way, measure), families in ordered
        ]
        write_csv(Row, rows, out)
    click.echo(out.read_text())


if __name__ == "__main__":
    main()
