"""Spans that a server has measured while it idled, as a collection to calibrate on: what was measured is not measured again.

An audit holds the falls of random halves of the regions (audit.py). Beside them go the features, which are read anew from the
saved run, and the falls of each region alone and of all, one set of passes for all spans of a run.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from eyeline import audit
from eyeline.ablation import read_trace
from eyeline.audit import Audited
from eyeline.capture import AttentionCapture
from eyeline.errors import DataError
from eyeline.events import SpanAttribution
from eyeline.examples import OWN
from eyeline.fingerprint import fingerprint
from eyeline.head_set import SET
from eyeline.kept_trace import read_back
from eyeline.model import Model
from eyeline.regions import Regions
from eyeline.runs import read_run
from eyeline.spans import Span
from eyeline.training.collect import (
    ALONE,
    WHOLE,
    Answered,
    Collected,
    Settings,
    ablate_and_read,
    file_of,
    half,
    open_run,
    save_collected,
)


def find_audited(folder: Path, model: Model) -> dict[Path, list[Audited]]:
    """Of each saved run below a folder the spans that were measured of these weights, the newest run first.

    Those alone whose regions were hidden in the way of the newest. Raises `DataError` where there is none, or a damaged one.
    """
    of_model, found = fingerprint(model), defaultdict(list)
    for path in sorted(folder.glob(f"**/{audit.FOLDER}/span-*.safetensors")):
        one = audit.read(path)
        if one.origin.fingerprint == of_model:
            found[path.parent.parent].append(one)
    if not found:
        raise DataError(
            f"{folder} holds no span that was measured of these weights; expected the folder of a server's runs that "
            "`eyeline serve --audit` wrote."
        )
    newest = sorted(found, key=lambda run: -max(one.origin.created for one in found[run]))
    way = max(found[newest[0]], key=lambda one: one.origin.created).origin.hiding
    same = {run: [one for one in found[run] if one.origin.hiding == way] for run in newest}
    return {run: spans for run, spans in same.items() if spans}


def collect_audited(model: Model, runs: dict[Path, list[Audited]], out: Path) -> Iterator[str]:
    """Completes what was measured of some runs; yields each run's name as it is there. Goes on where it stopped.

    Each span becomes an image of the collection, named RUN+SPAN; `run_of` says which belong together. Raises `DataError`.
    """
    way = next(iter(runs.values()))[0].origin.hiding
    settings = Settings(
        hiding=way,  # pyright: ignore[reportArgumentType]
        rates=(audit.RATE,), subsets=audit.SUBSETS, ordered=0, ordered_share=0.0, kinds=SET,
    )  # fmt: skip
    open_run(model, out, asdict(settings), "collection")
    for folder, spans in runs.items():
        missing = [one for one in spans if not file_of(out, _name(folder, one)).exists()]
        if missing:
            for one in complete(model, folder, missing, settings):
                save_collected(one, file_of(out, one.id))
        yield folder.name


def run_of(collected: Collected) -> str:
    """The name of the run that a span of `collect_audited` is of."""
    return collected.id.rpartition("+")[0]


def _name(folder: Path, one: Audited) -> str:
    return f"{folder.name}+{one.origin.span:05d}"


def complete(model: Model, folder: Path, measured: list[Audited], settings: Settings) -> list[Collected]:
    """Spans of a run with their features, and the falls of each region alone and of all beside those that were measured."""
    run = read_run(folder)
    kept = read_back(model, run, measured[0].origin.messages)
    inputs = kept.inputs
    told = {event.index: event for event in run.events if isinstance(event, SpanAttribution)}
    spans = [_span(told[one.origin.span]) for one in measured]
    labels = tuple(torch.tensor(grid) for grid in run.start.regions)
    found = Regions(labels, measured[0].subsets.shape[1])
    own = Answered(list(run.images), inputs, torch.tensor(kept.ids, device=model.device), spans, "")
    with torch.inference_mode(), AttentionCapture(model, inputs, outputs=True) as capture:
        read_trace(model, inputs, own.ids)
    more = torch.cat([torch.eye(found.count), torch.ones(1, found.count)]).bool()
    rates = torch.tensor([ALONE] * found.count + [WHOLE])
    falls, seen = ablate_and_read(model, own, capture, found, more, rates == ALONE, settings)
    each, start = [], 0
    for one, span in zip(measured, spans, strict=True):
        tokens = slice(start, start := start + span.end - span.start)
        each.append(Collected(
            id=_name(folder, one), family=OWN, answer="", spans=(asdict(span),),
            features=half(seen.features[tokens]).cpu(), log_odds=seen.log_odds[tokens].cpu().clone(),
            subsets=torch.cat([one.subsets, more]), rates=torch.cat([torch.full((len(one.subsets),), audit.RATE), rates]),
            token_falls=torch.cat([one.token_falls, falls[:, tokens].T], dim=1), token_contributions=None,
            labels=tuple(grid.tolist() for grid in labels),
        ))  # fmt: skip
    return each


def _span(event: SpanAttribution) -> Span:
    return Span(event.index, event.channel, event.start, event.end, event.text, event.cut)
