"""Eyeline's estimators on a given trace, which is read once, and with them the linear map on attention of arXiv 2604.16587.

All numbers come from the reader that streams use (reader.py): what is evaluated is what events carry.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eyeline.ablation import read_trace
from eyeline.capture import AttentionCapture
from eyeline.estimator import Estimator
from eyeline.features import KINDS, Read, captured_features, needs_outputs, own_parts
from eyeline.game import Game, evidence_order, hiding_order
from eyeline.model import Inputs, Model
from eyeline.reader import Reader, ReadSpan
from eyeline.regions import Regions
from eyeline.spans import Span
from eyeline.teacher_forcing import Along


@dataclass(frozen=True, eq=False)
class Prediction:
    """What an estimator says of each span, and the games it comes from."""

    spans: list[ReadSpan]

    @property
    def games(self) -> list[Game]:
        return [span.game for span in self.spans if span.game is not None]

    @property
    def effects(self) -> Float[Tensor, "span region"]:
        """Falls with each region alone hidden."""
        return torch.stack([span.said.effects for span in self.spans if span.said is not None])

    @property
    def shown(self) -> Float[Tensor, "span region"]:
        """What the heat shows."""
        return torch.stack([span.shown for span in self.spans])

    @property
    def intervals(self) -> Float[Tensor, "span region 2"] | None:
        """Of effects; None where the estimator knows none."""
        return _stacked(span.said and span.said.interval for span in self.spans)

    @property
    def shown_intervals(self) -> Float[Tensor, "span region 2"] | None:
        """Of what the heat shows."""
        return _stacked(span.said and span.said.contribution_interval for span in self.spans)

    def together(self, subsets: Bool[Tensor, "subset region"]) -> Float[Tensor, "span subset"]:
        """Joint falls."""
        return torch.stack([game(subsets.T.to(game.apart)) for game in self.games])

    def order(self, *, showing: bool) -> Float[Tensor, "span region"]:
        """How early each region comes where, one after the other, they are to do most to the joint fall."""
        found = evidence_order if showing else hiding_order
        return torch.stack([_places(found(game)) for game in self.games])


def _stacked(parts: Iterable[Tensor | None]) -> Tensor | None:
    known = [each for each in parts if each is not None]
    return torch.stack(known) if known else None


def _places(order: Sequence[int]) -> Float[Tensor, " region"]:
    places = torch.zeros(len(order))
    places[torch.tensor(order)] = torch.arange(len(order), 0, -1).float()
    return places


def read_spans(
    model: Model,
    inputs: Inputs,
    trace_ids: Int[Tensor, " token"],
    spans: Sequence[Span],
    regions: Regions,
    kinds: Sequence[str] = KINDS,
) -> Read:
    """Features of regions' own tokens, all layers, in one teacher-forced pass; columns kind-major, in the order of `kinds`."""
    trace_ids = trace_ids.to(model.device)
    parts = own_parts(regions.of_patch.to(model.device), regions.count)
    with torch.inference_mode(), AttentionCapture(model, inputs, outputs=needs_outputs(kinds)) as capture:
        read_trace(model, inputs, trace_ids)
        return captured_features(model, capture, trace_ids, spans, parts, kinds)


def estimated(estimator: Estimator, measure_whole: bool = False) -> Callable[..., Prediction]:
    """A method with a `Baseline`'s arguments.

    An estimator of kind `attention` alone with the link `identity` is the paper's own linear map w . f_{S,k}
    (arXiv 2604.16587). `measure_whole`: as streams that read the text once more without its images.
    """

    def predict(
        model: Model,
        inputs: Inputs,
        trace_ids: Int[Tensor, " token"],
        spans: Sequence[Span],
        regions: Regions,
    ) -> Prediction:
        layers = estimator.layers(len(model.adapter.layers(model.hf)))
        outputs = needs_outputs(estimator.kinds)
        with (
            torch.inference_mode(),
            AttentionCapture(model, inputs, layers=layers, outputs=outputs) as capture,
        ):
            Along(model, inputs).read(trace_ids.tolist()[:-1])  # in the same passes as `attribute`
        with torch.inference_mode():
            own = estimator.to(model.device)
            reader = Reader(model, inputs, capture, regions, own, measure_whole=measure_whole)
            reader.measure_leak()
            ids = trace_ids.tolist()
            reader.read_ahead(0, ids)
            return Prediction([reader.read(span, ids[span.start : span.end]) for span in spans])

    return predict
