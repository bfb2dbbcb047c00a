"""Attribution by really hiding regions, which estimators are to save; and noise, which every method is to beat."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eyeline.ablation import Method, ablate, by_span, hidden_patches
from eyeline.model import Inputs, Model
from eyeline.regions import Regions
from eyeline.spans import Span

Penalty = Literal["lasso", "ridge"]
ALPHAS: dict[Penalty, float] = {"lasso": 0.01, "ridge": 1.0}  # ContextCite's; scikit-learn's default


def exhaustive(
    model: Model,
    inputs: Inputs,
    trace_ids: Int[Tensor, " token"],
    spans: Sequence[Span],
    regions: Regions,
    *,
    method: Method = "pixels",
) -> Float[Tensor, "span region"]:
    """Delta_k(S) itself (arXiv 2604.16587): each region alone hidden, the fall in log-prob summed over the span, nats.

    One row of a batched forward for each region serves every span of the trace.
    """
    alone = torch.eye(regions.count, dtype=torch.bool)
    return span_falls(model, inputs, trace_ids, spans, regions, alone, method)


def regression(
    subsets: int,
    *,
    penalty: Penalty = "lasso",
    alpha: float | None = None,
    rate: float = 0.5,
    seed: int = 0,
    method: Method = "pixels",
) -> Callable[..., Float[Tensor, "span region"]]:
    """A `Baseline`: ContextCite (arXiv 2409.00729) with regions as sources and spans as statements.

    A sparse linear model of a span's log-prob falls in which regions are hidden, fitted to `subsets` random subsets (the
    paper takes 32 to 256), each region hidden with probability `rate`; nats. The fall is in log-prob, not in the paper's
    log-odds, because that is what methods are evaluated on. All spans share the subsets, so that the cost is one forward
    a subset and trace. Subsets depend on `seed` and the trace.
    """

    def effects(
        model: Model,
        inputs: Inputs,
        trace_ids: Int[Tensor, " token"],
        spans: Sequence[Span],
        regions: Regions,
    ) -> Float[Tensor, "span region"]:
        drawn = torch.rand(subsets, regions.count, generator=_generator(trace_ids, seed)) < rate
        falls = span_falls(model, inputs, trace_ids, spans, regions, drawn, method).cpu()
        lengths = torch.tensor([span.end - span.start for span in spans])
        return fit_falls(drawn, falls, lengths, penalty, alpha).to(model.device)

    return effects


def random_effects(
    model: Model, inputs: Inputs, trace_ids: Int[Tensor, " token"], spans: Sequence[Span], regions: Regions
) -> Float[Tensor, "span region"]:
    """Noise, the floor; the same whenever the same trace comes."""
    return torch.randn(len(spans), regions.count, generator=_generator(trace_ids)).to(model.device)


def span_falls(
    model: Model,
    inputs: Inputs,
    trace_ids: Int[Tensor, " token"],
    spans: Sequence[Span],
    regions: Regions,
    subsets: Bool[Tensor, "subset region"],
    method: Method,
) -> Float[Tensor, "span subset"]:
    """The fall in a span's log-prob with each subset of regions hidden, nats."""
    falls = ablate(model, inputs, trace_ids, hidden_patches(subsets, regions.of_patch), method).falls
    return by_span(falls, spans)


def fit_falls(
    subsets: Bool[Tensor, "subset region"],
    falls: Float[Tensor, "span subset"],
    lengths: Int[Tensor, " span"],
    penalty: Penalty = "lasso",
    alpha: float | None = None,
) -> Float[Tensor, "span region"]:
    """Coefficients of a linear model, with intercept, of each span's falls: nats for a region hidden.

    As in ContextCite's code the columns are standardised and falls are taken per token of the span (`lengths`), so that
    one `alpha`, theirs by default, suits spans of every length. Both penalties are scikit-learn's: LASSO minimises
    |y - Xw|^2 / 2n + alpha |w|_1 over n subsets, ridge |y - Xw|^2 + alpha |w|^2.
    """
    from sklearn.linear_model import Lasso, Ridge
    from sklearn.preprocessing import StandardScaler

    alpha = ALPHAS[penalty] if alpha is None else alpha
    solver: Any = {"lasso": Lasso(alpha=alpha, max_iter=10_000), "ridge": Ridge(alpha=alpha)}[penalty]
    scaler = StandardScaler()
    columns = scaler.fit_transform(subsets.double().numpy())
    per_token = (falls.double() / lengths[:, None]).numpy()
    weights = torch.stack(
        [torch.from_numpy(solver.fit(columns, row).coef_ / scaler.scale_) for row in per_token]
    )
    return (weights * lengths[:, None]).float()


def _generator(trace_ids: Int[Tensor, " token"], seed: int = 0) -> torch.Generator:
    """Randomness of its own for each seed and trace, the same in every run."""
    digest = hashlib.sha256(f"{seed} {trace_ids.tolist()}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
