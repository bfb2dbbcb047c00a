"""A saved run as one HTML file that needs nothing else: the image, the trace, and where each span looked.

The file holds the run as JSON and the page's own view (the modules and the style sheet in `server/static`), inlined
into `report.html`. What the views outside the browser share in words and scales (`number_regions`, `resting`,
`none_alone`, `strength`) stands here too.
"""

import base64
import functools
import html
import io
import json
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageStat

from eyeline.boxes import RATHER, likeliest
from eyeline.claims import as_shares
from eyeline.events import Event, RestsOn, SpanAttribution, Start, Unit, to_json
from eyeline.files import write_files
from eyeline.game import NOTHING
from eyeline.regions.place import where
from eyeline.runs import Run

FLOORS = {"nats": 0.5, "relative": 0.5, "attention": 0.1}  # a span with less hardly rests on the image
# A span that rests on the image with this has the full colour where it rests on it most, with less a paler one.
FULL = {"nats": 2.0, "relative": 2.0, "attention": 0.1}
# Share of the colours at the floor of nats, and of what is marked as not grounded, whose map is to be no louder than the mark.
PALE = 0.25
POSSIBLE = 0.1  # chance that the answer changes, under which a region is not worth naming
FEW = 3  # regions that words name
ABOUT = {"nats": "", "relative": "~", "attention": ""}  # before numbers whose size is not calibrated
ALONE = 0.1  # share of what everything hidden does, under which no region matters alone
TRAIN_COMMANDS = ("eyeline collect --model {model} --data DIR --out RUN", "eyeline fit RUN --out EST")
IMPORT = re.compile(r"^import \{[^}]*\} from \"\./([\w.]+)\";\n", re.MULTILINE)
LONGEST_SIDE = 2048  # pixels of an embedded image
LARGEST_PNG = 1_500_000  # bytes; a photograph above this is embedded as JPEG


def write_report(run: Run, path: str | Path) -> None:
    """Writes the report of a run; an earlier file is replaced or kept whole. Raises `DataError`."""
    write_files({Path(path): render_report(run).encode("utf-8", "replace")})


def render_report(run: Run) -> str:
    """The report as HTML. Nothing of the run is markup in it: the trace travels as JSON, shown as text."""
    return render_view(run.prompt, run.images, run.events)


def render_view(
    prompt: str, images: Sequence[Image.Image], events: Sequence[Event], *, live: bool = False
) -> str:
    """One HTML file with the view of a run. A `live` one takes more events as messages from the page around it."""
    data = {
        "prompt": prompt,
        "images": [{"url": _data_url(image), "dark": is_dark(image)} for image in images],
        "events": [json.loads(to_json(event)) for event in events],
        "claims": as_shares(events),
        "live": live,
    }
    fields = {
        "title": html.escape(" ".join(prompt.split())[:80]),
        "style": read_static("view.css"),
        "script": _inline_modules(),
        "data": json_in_script(data),
    }
    template = files("eyeline").joinpath("report.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(title|style|script|data)\}\}", lambda match: fields[match[1]], template)


def read_static(name: str) -> str:
    """A file of the page."""
    return files("eyeline").joinpath("server", "static", name).read_text(encoding="utf-8")


@functools.cache
def _inline_modules() -> str:
    """The modules behind `report.js` as one script: those it imports first, imports and exports taken out.

    Their top-level names share one scope, so no two modules may define the same.
    """
    sources: dict[str, str] = {}

    def add(name: str) -> None:
        source = read_static(name)
        for imported in IMPORT.findall(source):
            if imported not in sources:
                add(imported)
        sources[name] = re.sub(r"^export ", "", IMPORT.sub("", source), flags=re.MULTILINE).strip()

    add("report.js")
    return '(() => {\n"use strict";\n' + "\n\n".join(sources.values()) + "\n})();"


def name_regions(start: Start) -> tuple[str, ...]:
    """Where each region lies, in words: "top left", or "top left of image 2" if there are several."""
    names = {}
    for number, grid in enumerate(start.regions, start=1):
        labels = torch.tensor(grid)
        for label in labels.unique().tolist():
            name = where(labels, label)
            names[label] = f"{name} of image {number}" if len(start.regions) > 1 else name
    return tuple(names[label] for label in sorted(names))


def number_regions(start: Start) -> tuple[str, ...]:
    """Each region's number and where it lies, "15 bottom right": many lie in one place, and every view tells them apart so."""
    return tuple(f"{number} {name}" for number, name in enumerate(name_regions(start)))


def resting(span: SpanAttribution, unit: Unit) -> str:
    """How a span rests on the image, in words before its regions; the page's `resting` (run.js) says the same.

    Words that say that nothing matters only where neither the whole image nor any region, alone or beside others, does.
    """
    if unit == "attention":
        return "attends to"
    most = _most(span)
    if most < NOTHING:
        return "follows from the text before it"
    if most < FLOORS[unit]:
        return "hardly rests on the image"
    whole = span.whole_image or 0.0
    if -whole >= FLOORS[unit] and max(span.shown) < FLOORS[unit]:
        return "is likelier without the image"
    return "rests on several regions together" if max(span.effects) < ALONE * whole else "rests on"


def strength(span: SpanAttribution, unit: Unit) -> float:
    """From 0 to 1: the colour of a span's strongest place. Many weak regions that do much together have the full one."""
    return paleness([span]) * min(1.0, _most(span) / FULL[unit])


def stands_out(span: SpanAttribution, unit: Unit) -> bool:
    """Whether a span does not hardly rest on the image, and is not marked as not grounded."""
    return paleness([span]) == 1 and _most(span) >= FLOORS[unit]


def paleness(spans: Sequence[SpanAttribution]) -> float:
    """What is left of the colours of a span, or of an answer with its spans: less where all are marked as not grounded."""
    return PALE if spans and all(span.grounded is False for span in spans) else 1.0


def answer_spans(events: Iterable[Event]) -> list[SpanAttribution]:
    return [event for event in events if isinstance(event, SpanAttribution) and event.channel == "answer"]


def none_alone(rests_on: RestsOn, names: Sequence[str], unit: Unit) -> str:
    """Said where no region would change the answer by itself; the page's `noneAlone` (words.js) says the same."""
    changes, about = rests_on.changes, ABOUT[unit]
    worth = [region for region in likeliest(changes)[:FEW] if changes[region] >= POSSIBLE]
    most = ", ".join(f"{names[region]} ({about}{percent(changes[region])})" for region in worth)
    whole = (
        "Without the whole image it would change" if rests_on.whole >= RATHER else "Nor is the whole image"
    )
    said = "No part by itself is likely to change it" + (f"; most likely {most}" if most else "")
    return f"{said}. {whole} ({about}{percent(rests_on.whole)})."


def percent(chance: float) -> str:
    return f"{100 * chance:.0f} %"


def _most(span: SpanAttribution) -> float:
    """The largest that hiding does to a span: the whole image, or a region, alone or beside others."""
    return max(map(abs, (*span.shown, *span.effects, span.whole_image or 0.0)))


def json_in_script(data: Any) -> str:
    """JSON that HTML reads as text: no `</script>`, no `<!--`."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def is_dark(image: Image.Image) -> bool:
    """Whether heat stands out better as light on it than as ink."""
    return ImageStat.Stat(image.convert("L")).mean[0] < 100  # of 255


def _data_url(image: Image.Image) -> str:
    image = image.convert("RGB")
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    encoded, kind = io.BytesIO(), "png"
    image.save(encoded, "PNG", optimize=True)
    if encoded.tell() > LARGEST_PNG:
        encoded, kind = io.BytesIO(), "jpeg"
        image.save(encoded, "JPEG", quality=90)
    return f"data:image/{kind};base64,{base64.b64encode(encoded.getvalue()).decode()}"
