"""A saved run as one HTML file that needs nothing else: the image, the trace, and where each span looked.

Python gathers what is shown into one JSON object; `report.html` draws it. What views share in words and
scales (`name_regions`, `FLOORS`) stands here too.
"""

import base64
import html
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageStat

from eyeline.events import Channel, Done, Error, Event, SpanAttribution, Start, Text
from eyeline.regions import where
from eyeline.runs import Run, write_files

# The strongest effect of a span that gets the full colour is at least this: spans that hardly look stay pale.
FLOORS = {"nats": 0.5, "attention": 0.1}
TRAIN_COMMANDS = ("eyeline collect --model {model} --data DIR --out RUN", "eyeline fit RUN --out EST")
LONGEST_SIDE = 2048  # pixels of an embedded image
LARGEST_PNG = 1_500_000  # bytes; a photograph above this is embedded as JPEG


def write_report(run: Run, path: str | Path) -> None:
    """Writes the report of a run; an earlier file is replaced or kept whole. Raises `DataError`."""
    write_files({Path(path): render_report(run).encode("utf-8", "replace")})


def render_report(run: Run) -> str:
    """The report as HTML. Nothing of the run is markup in it: the trace travels as JSON, shown as text."""
    start = run.start
    done = next((event for event in run.events if isinstance(event, Done)), None)
    data = {
        "prompt": run.prompt,
        "version": start.version,
        "model": start.model,
        "estimator": start.estimator,
        "unit": start.unit,
        "floor": FLOORS[start.unit],
        "train": [command.format(model=start.model) for command in TRAIN_COMMANDS],
        "images": [
            {**asdict(info), "url": _data_url(image), "dark": _is_dark(image), "labels": grid}
            for info, image, grid in zip(start.images, run.images, start.regions, strict=True)
        ],
        "regions": name_regions(start),
        "trace": {channel: trace_items(run.events, channel) for channel in ("thinking", "answer")},
        "done": done and asdict(done),
    }
    fields = {"title": html.escape(" ".join(run.prompt.split())[:80]), "data": _json_in_script(data)}
    template = files("eyeline").joinpath("report.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(title|data)\}\}", lambda match: fields[match[1]], template)


def name_regions(start: Start) -> tuple[str, ...]:
    """Where each region lies, in words: "top left", or "top left of image 2" if there are several."""
    names = {}
    for number, grid in enumerate(start.regions, start=1):
        labels = torch.tensor(grid)
        for label in labels.unique().tolist():
            name = where(labels, label)
            names[label] = f"{name} of image {number}" if len(start.regions) > 1 else name
    return tuple(names[label] for label in sorted(names))


def trace_items(events: Sequence[Event], channel: Channel) -> list[dict[str, Any]]:
    """One channel's text in reading order: its spans, the text that no span covers, the errors between.

    The texts of the items of kind `span` and `text` joined are the channel's text.
    """
    text = "".join(event.text for event in events if isinstance(event, Text) and event.channel == channel)
    items: list[dict[str, Any]] = []
    position, current = 0, "thinking"
    for event in events:
        current = getattr(event, "channel", current)
        if isinstance(event, SpanAttribution) and event.channel == channel:
            found = text.find(event.text, position)
            if found > position:
                items.append({"kind": "text", "text": text[position:found]})
            position = max(position, found + len(event.text))
            items.append({"kind": "span", **asdict(event)})
        elif isinstance(event, Error) and current == channel:
            items.append({"kind": "error", "message": event.message})
    return items + ([{"kind": "text", "text": text[position:]}] if text[position:] else [])


def _json_in_script(data: Any) -> str:
    """JSON that HTML reads as text: no `</script>`, no `<!--`."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _is_dark(image: Image.Image) -> bool:
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
