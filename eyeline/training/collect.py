"""The data an estimator is fitted on: for every span of the model's own traces, features and measured effects.

Each image is one file, written when it is whole, so that a collection that was killed goes on where it stopped.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as as_safetensors
from torch import Tensor

import eyeline
from eyeline.ablation import Method, ablate, hidden_patches, measured_contributions, prefixes, read_trace
from eyeline.capture import AttentionCapture
from eyeline.errors import DataError, EyelineError
from eyeline.estimator import sum_spans
from eyeline.examples import Example, digest
from eyeline.features import Read, captured_features, own_parts, spread_parts
from eyeline.files import make_folder, open_folder, read_text, write_first
from eyeline.fingerprint import fingerprint
from eyeline.game import orders
from eyeline.generation import check_options, write
from eyeline.head_set import SET
from eyeline.images import open_image
from eyeline.leak import EXACT, Fill, fill_regions, fills_of, spreads
from eyeline.model import Inputs, Model, rope_deltas_kept
from eyeline.regions import Regions, load_source, regions_for
from eyeline.spans import Span
from eyeline.teacher_forcing import Vision

One = TypeVar("One")
ALONE, WHOLE = -1.0, -2.0  # in place of a rate: one region by itself; everything


@dataclass(frozen=True, slots=True)
class Settings:
    """What a collection was made with; it stands in `run.json`, and a run is only ever continued with the same."""

    hiding: Method = "pixels"
    regions: str = "native"
    rates: tuple[float, ...] = (0.5, 0.25, 0.1)  # each region is hidden with this probability
    subsets: int = 12  # at each rate
    ordered: int = 8  # antithetic pairs of orders by which contributions are measured
    ordered_share: float = 0.08  # of the images, by their ids, on which they are
    max_new_tokens: int = 512
    max_spans: int = 64  # of a trace, spread evenly
    seed: int = 0
    kinds: tuple[str, ...] = SET  # of features: of the heads as a set, or KINDS of every head
    heads: tuple[int, ...] = ()  # of which features are kept, numbered layer by layer; none: all
    heads_in_all: int = 0  # where some are kept: how many the model has


@dataclass(frozen=True, slots=True)
class Collected:
    """One image of a collection."""

    id: str
    family: str
    answer: str
    spans: tuple[dict[str, Any], ...]  # index, channel, start, end, text, cut
    features: Float[Tensor, "token region feature"]  # float16; tokens of the spans, one span after the other
    log_odds: Float[Tensor, " token"]  # of the written tokens, nats
    subsets: Bool[Tensor, "subset region"]
    rates: Float[Tensor, " subset"]  # at which each subset was drawn, or ALONE or WHOLE
    token_falls: Float[Tensor, "token subset"]  # fall in log-prob, nats
    token_contributions: (
        Float[Tensor, "token region"] | None
    )  # Shapley values of measured falls, nats, of some images
    labels: tuple[Any, ...]  # one label grid for each image

    @property
    def lengths(self) -> Int[Tensor, " span"]:
        """Tokens of each span."""
        return torch.tensor([span["end"] - span["start"] for span in self.spans])

    @property
    def falls(self) -> Float[Tensor, "span subset"]:
        """Those of each span's tokens, summed."""
        return sum_spans(self.token_falls, self.lengths)

    @property
    def contributions(self) -> Float[Tensor, "span region"] | None:
        """Those of each span's tokens, summed."""
        found = self.token_contributions
        return None if found is None else sum_spans(found, self.lengths)


@dataclass(frozen=True, eq=False)
class Answered:
    """One example with the model's own greedy trace."""

    pictures: list[Image.Image]
    inputs: Inputs
    ids: Int[Tensor, " token"]  # on the model's device
    spans: list[Span]
    answer: str


def answer(model: Model, example: Example, max_new_tokens: int, max_spans: int) -> Answered:
    """Generates and cuts; of more than `max_spans` spans so many are kept, spread evenly."""
    pictures = [open_image(image) for image in example.images]
    inputs = model.inputs(pictures, example.prompt)
    (written,) = write(model, inputs, max_new_tokens)
    spans = written.spans
    if len(spans) > max_spans:
        spans = [spans[int(at)] for at in torch.linspace(0, len(spans) - 1, max_spans).tolist()]
    return Answered(pictures, inputs, torch.tensor(written.ids, device=model.device), spans, written.answer)


def regions_of(
    model: Model, pictures: list[Image.Image], inputs: Inputs, source: str = "native", seed: int = 0
) -> Regions:
    """The regions of a prompt with images, from a pass over the prompt alone."""
    with torch.inference_mode(), rope_deltas_kept(model), AttentionCapture(model, inputs) as capture:
        model.hf.model(**inputs, use_cache=False)
    assert capture.vision_features is not None
    return regions_for(pictures, capture.grids, capture.vision_features, source, seed)


def collect_one(model: Model, example: Example, settings: Settings) -> Collected:
    """Generates, cuts, ablates and reads one example."""
    own = answer(model, example, settings.max_new_tokens, settings.max_spans)
    layers, columns = _kept(model, settings)
    with torch.inference_mode(), AttentionCapture(model, own.inputs, layers=layers, outputs=True) as capture:
        read_trace(model, own.inputs, own.ids)
    assert capture.vision_features is not None
    found = regions_for(own.pictures, capture.grids, capture.vision_features, settings.regions, settings.seed)
    drawn, rates = draw_subsets(found.count, settings, example.id)
    ordered = None
    if place(example.id) < settings.ordered_share:
        ordered = orders(found.count, settings.ordered, seed=_seed(f"order {settings.seed} {example.id}"))
    subsets = drawn if ordered is None else torch.cat([drawn, prefixes(ordered)])
    singly = torch.cat([rates == ALONE, torch.zeros(len(subsets) - len(drawn), dtype=torch.bool)])
    spans, seen = ablate_and_read(model, own, capture, found, subsets, singly, settings)
    contributions = None
    if ordered is not None:
        contributions = measured_contributions(spans[len(drawn) :], spans[len(drawn) - 1], ordered)
    return Collected(
        id=example.id,
        family=example.family,
        answer=own.answer,
        spans=tuple(asdict(span) for span in own.spans),
        features=half(seen.features if columns is None else seen.features[..., columns]).cpu(),
        log_odds=seen.log_odds.cpu().clone(),
        subsets=drawn,
        rates=rates,
        token_falls=spans[: len(drawn)].T,
        token_contributions=None if contributions is None else contributions.mean(0).T,
        labels=tuple(grid.tolist() for grid in found.labels),
    )


def _kept(model: Model, settings: Settings) -> tuple[list[int] | None, Tensor | None]:
    """Which layers are captured, and which columns of their features are kept; None for all."""
    if not settings.heads:
        return None, None
    config = model.adapter.text_config(model.hf)
    each = config.num_attention_heads
    if settings.heads_in_all != each * config.num_hidden_layers:
        raise DataError(
            f"The heads to keep were chosen among {settings.heads_in_all}, and {model.name} has "
            f"{each * config.num_hidden_layers}; choose them on a collection of the same model."
        )
    layers = sorted({head // each for head in settings.heads})
    within = torch.tensor([layers.index(head // each) * each + head % each for head in settings.heads])
    number = len(layers) * each
    return layers, torch.cat([kind * number + within for kind in range(len(settings.kinds))])


def ablate_and_read(
    model: Model, own: Answered, capture: AttentionCapture, found: Regions, subsets: Bool[Tensor, "subset region"],
    singly: Bool[Tensor, " subset"], settings: Settings,
) -> tuple[Float[Tensor, "subset token"], Read]:  # fmt: skip
    """Falls of the spans' tokens with each subset hidden, nats, on the CPU, and what is read of these tokens.

    `capture` has seen the trace. `singly` says which subsets are the regions, each alone and in order: these passes of the
    vision tower serve falls and leak map alike.
    """
    labels = found.of_patch.to(model.device)
    hidden = hidden_patches(subsets.to(model.device), labels)
    singly = singly.to(model.device)
    fills: list[Fill] = []
    passed = 0

    def watch(vision: Vision) -> None:
        """The passes that have one region filled serve the leak map too."""
        nonlocal passed
        batch = slice(passed, passed + len(vision.features) - 1)
        passed = batch.stop
        rows = singly[batch]
        if rows.any() and len(labels) <= EXACT:
            filled = vision.of(1 + rows.nonzero()[:, 0])
            fills.extend(fills_of(vision.of(slice(1)), filled, hidden[batch][rows], found.count))

    falls = ablate(model, own.inputs, own.ids, hidden, settings.hiding, watch=watch).falls
    parts = own_parts(labels, found.count)
    if spreads(settings.hiding):
        if len(labels) > EXACT:
            fills = fill_regions(model, own.inputs, found, settings.hiding)
        parts = spread_parts(model, own.inputs, found, fills, capture.layers)
    with torch.inference_mode():
        seen = captured_features(model, capture, own.ids, own.spans, parts, settings.kinds)
    return torch.cat([falls[:, span.start : span.end] for span in own.spans], dim=1).float().cpu(), seen


def half(features: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """As float16, which holds features closely enough and half as large; what it cannot hold becomes its largest."""
    most = torch.finfo(torch.float16).max
    return features.clamp(-most, most).half()


def _seed(name: str) -> int:
    """A number of 63 bits that a name always gives."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def place(example_id: str) -> float:
    """Where an example lies between 0 and 1 in an order that says nothing of it: that of its id's hash."""
    return int.from_bytes(hashlib.sha256(example_id.encode()).digest()[:8], "big") / 2**64


@runtime_checkable
class Drawn(Protocol):
    """What subsets are drawn by: probabilities of hiding a region, subsets at each, and a seed."""

    @property
    def rates(self) -> tuple[float, ...]: ...
    @property
    def subsets(self) -> int: ...
    @property
    def seed(self) -> int: ...


def draw_subsets(
    num_regions: int, settings: Drawn, example_id: str
) -> tuple[Bool[Tensor, "subset region"], Float[Tensor, " subset"]]:
    """Random subsets at each rate, then each region alone, then all of them; the draw depends on seed and example."""
    rng = torch.Generator().manual_seed(_seed(f"{settings.seed} {example_id}"))
    drawn = [torch.rand(settings.subsets, num_regions, generator=rng) < rate for rate in settings.rates]
    subsets = torch.cat(
        [*drawn, torch.eye(num_regions, dtype=torch.bool), torch.ones(1, num_regions, dtype=torch.bool)]
    )
    rates = (
        [rate for rate in settings.rates for _ in range(settings.subsets)] + [ALONE] * num_regions + [WHOLE]
    )
    return subsets, torch.tensor(rates)


def collect(model: Model, examples: Iterable[Example], out: Path, settings: Settings) -> Iterator[str]:
    """Collects every example that the run does not hold yet, and yields the id of each as it is done or found done.

    Raises `DataError` where the folder holds a run of another model, version or settings, and for an example that
    cannot be collected; what is there stays, and the run goes on from it.
    """
    if not settings.rates or not all(0 < rate < 1 for rate in settings.rates) or settings.subsets < 2:
        raise DataError(
            f"{settings.subsets} subsets at the rates {settings.rates} cannot be drawn; expected at least 2, "
            "and rates between 0 and 1."
        )
    check_options(model, {})
    load_source(settings.regions, model.device)
    known = asdict(settings)
    if not settings.heads:  # collections of all heads are what they were before some could be chosen
        del known["heads"], known["heads_in_all"]
    open_run(model, out, known, "collection")
    yield from each_once(
        examples, out, lambda example: collect_one(model, example, settings), save_collected, "collected"
    )


def each_once(
    examples: Iterable[Example], run: Path, make: Callable[[Example], One], save: Callable[[One, Path, str], None], made: str
) -> Iterator[str]:  # fmt: skip
    """Has every example made and saved that the run does not hold yet, and yields the id of each as it is there.

    Several processes may do so in one folder. Raises `DataError` as `named` does, for an example that the run holds of another
    image or question, and for one that cannot be made.
    """
    for example in named(examples):
        path = file_of(run, example.id)
        if path.exists():
            if _digest_in(path) != digest(example):
                raise DataError(
                    f"{path} was {made} of another image or question than the example {example.id!r} has here; choose "
                    "another --out, or remove the file and run the same again."
                )
        else:
            try:
                one = make(example)
            except EyelineError as error:
                raise DataError(
                    f"The example {example.id!r} cannot be {made}: {error} Repair it or leave it out, and run the "
                    f"same again; what is {made} stays."
                ) from error
            save(one, path, digest(example))
        yield example.id


def wrong_id(example_id: str, seen: Collection[str]) -> str | None:
    """What is wrong with an id beside those that were seen; None where nothing is."""
    if example_id in seen:
        return "stands twice in the data"
    return None if Path(example_id).name == example_id else "cannot be the name of a file"


def named(examples: Iterable[Example]) -> Iterator[Example]:
    """The same examples. Raises `DataError` for an id that comes twice or is no name of a file."""
    seen = set()
    for example in examples:
        if (wrong := wrong_id(example.id, seen)) is not None:
            raise DataError(
                f"The example id {example.id!r} {wrong}; give each example a plain id of its own."
            )
        seen.add(example.id)
        yield example


def file_of(run: Path, example_id: str) -> Path:
    """Where a run holds an example, once it is made."""
    return run / "examples" / f"{example_id}.safetensors"


def _digest_in(path: Path) -> str | None:
    """That of the example which a saved file was made of; None in a file that is none."""
    try:
        with safe_open(path, "pt") as file:
            return json.loads(file.metadata()["rest"]).get("digest")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def open_run(model: Model, out: Path, settings: Mapping[str, Any], what: str) -> None:
    """Begins a run of measurements in a folder, or goes on with the one there.

    Raises `DataError` where the folder holds something else, or a run of another model, version, precision, kind of
    device or settings, and says which.
    """
    run = {
        "version": eyeline.__version__, "model": model.name, "fingerprint": fingerprint(model),
        "precision": str(model.hf.dtype).removeprefix("torch."), "device": model.device.type,
        "settings": json.loads(json.dumps(settings)),
    }  # fmt: skip
    open_folder(out, run, what)


OF_TOKENS = ("features", "log_odds", "subsets", "rates", "token_falls", "token_contributions")
IN_FILES = {"token_falls": "token_drops", "falls": "drops"}  # tensors that have another name there


def save_collected(collected: Collected, path: Path, digest: str = "") -> None:
    """Writes one image of a collection, whole or not at all. Raises `DataError` where the disk does not take it."""
    tensors = {name: value for name in OF_TOKENS if (value := getattr(collected, name)) is not None}
    rest = {name: getattr(collected, name) for name in ("id", "family", "answer", "spans", "labels")}
    save_example(tensors, {**rest, "digest": digest}, path)


def save_example(tensors: Mapping[str, Tensor], rest: Mapping[str, Any], path: Path) -> None:
    """Writes one example of a run, whole or not at all. Raises `DataError` where the disk does not take it."""
    whole = {
        IN_FILES.get(name, name): tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    make_folder(path.parent)
    write_first(path, as_safetensors(whole, {"rest": json.dumps(rest)}))


def read_run(run: Path) -> dict[str, Any]:
    """`run.json` of a collection. Raises `DataError` where there is none."""
    try:
        about = json.loads(read_text(run / "run.json"))
        if not {"version", "model", "fingerprint", "settings"} <= set(about):
            raise ValueError("fields are missing")
        return about
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{run} is no collection: it has no readable run.json ({error}); expected a folder that "
            "`eyeline collect` wrote."
        ) from error


def read_collected(run: Path) -> list[Collected]:
    """All images of a collection, by id. Raises `DataError` for a file that is none."""
    return list(read_saved(run, _collected, "collected"))


def _collected(rest: dict[str, Any], tensors: dict[str, Tensor]) -> Collected:
    return Collected(
        rest["id"], rest["family"], rest["answer"], tuple(rest["spans"]), labels=tuple(rest["labels"]),
        **{"token_contributions": None, **tensors},
    )  # fmt: skip


def read_saved(
    run: Path, make: Callable[[dict[str, Any], dict[str, Tensor]], One], what: str
) -> Iterator[One]:
    """Every example of a run, by id, made of what `save_example` was given. Raises `DataError` for a file that is none."""
    names = {key: name for name, key in IN_FILES.items()}
    for path in sorted((run / "examples").glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                rest = json.loads(file.metadata()["rest"])
                keys: list[str] = list(file.keys())
                one = make(rest, {names.get(key, key): file.get_tensor(key) for key in keys})
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise DataError(
                f"{path} is no {what} example ({type(error).__name__}: {error}); remove it and run the same again."
            ) from error
        yield one
