"""The two ways of hiding a region, compared: how much of the pixels' effect attention knockout misses.

Hiding visual tokens from attention leaves what they show inside other tokens, through the vision tower's own attention.
"""

import csv
from itertools import islice
from pathlib import Path

import click
import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from eyeline.ablation import ablate, hidden_patches, leak
from eyeline.attention import AttentionCapture
from eyeline.examples import read_examples
from eyeline.images import open_image
from eyeline.model import load
from eyeline.regions import regions_for
from eyeline.training.collect import Settings, draw_subsets, written_trace
from eyeline.training.fit import pearson


def ranks(drops: Tensor) -> Tensor:
    """Ranks of all values as one row; of a constant all the same, so that its correlation is 0."""
    return torch.from_numpy(rankdata(drops.flatten().numpy()))[None]


@click.command()
@click.option("--model", "model_id", default="mini", show_default=True)
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Data folder.")
@click.option("--limit", default=50, show_default=True, help="Examples.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="CSV to write.")
def main(model_id: str, data: Path, limit: int, out: Path) -> None:
    """Compare pixel filling and attention knockout on the same regions, subsets and traces."""
    model = load(model_id)
    leaks, agreements = [], []
    for example in islice(read_examples(data), limit):
        picture = open_image(example.image)
        inputs = model.inputs(picture, example.prompt)
        ids, spans = written_trace(model, inputs, 256)
        with torch.inference_mode(), AttentionCapture(model, inputs) as capture:
            model.hf.model(**inputs, use_cache=False)
        assert capture.vision_features is not None
        found = regions_for([picture], capture.grids, capture.vision_features)
        subsets, rates = draw_subsets(found.count, Settings(), example.id)
        hidden = hidden_patches(subsets[rates > 0], torch.cat([grid.flatten() for grid in found.labels]))
        drops = {}
        for method in ("pixels", "attention"):
            tokens = ablate(model, inputs, torch.tensor(ids), hidden, method).drops
            drops[method] = torch.stack([tokens[:, span.start : span.end].sum(1) for span in spans])
        leaks.append(leak(drops["pixels"], drops["attention"]))
        agreements.append(float(pearson(*(ranks(drops[method]) for method in ("pixels", "attention")))))
    rng = np.random.default_rng(0)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("measure", "mean", "low", "high", "images"))
        for name, values in (("leak", np.asarray(leaks)), ("spearman", np.asarray(agreements))):
            means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(2000)]
            low, high = np.quantile(means, (0.025, 0.975))
            table.writerow((name, *(f"{value:.4f}" for value in (values.mean(), low, high)), len(values)))
    click.echo(out.read_text())


if __name__ == "__main__":
    main()
