"""Does an audit tell the truth? What a server has measured of real spans while it idled, beside the same spans measured anew.

A server with `--audit` answers questions of a data folder; each span that it has then measured is measured again by other
subsets, and LDS of both stand side by side. And does it raise the alarm? The same with the vision tower's weights shuffled
under the estimator.
"""

import base64
import http.client
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.load import SECONDS, Served, serving
from eyeline import audit, load
from eyeline.ablation import ablate, hidden_patches
from eyeline.audit import Audited, Record
from eyeline.embedded import own_folders
from eyeline.estimator_files import estimator_for
from eyeline.evaluation.command_options import DATA, MODEL, TABLE
from eyeline.evaluation.results import write_csv, writing
from eyeline.evaluation.sanity import randomised
from eyeline.examples import Example, read_examples
from eyeline.fingerprint import fingerprint
from eyeline.metrics import lds, varies
from eyeline.model import Model
from eyeline.runs import read_run

QUIET_S = 20.0  # without a span that is new: the audit is through


@dataclass(frozen=True, slots=True)
class Row:
    """A number of the model as it is, or with its vision tower shuffled; with the 95 % interval over questions."""

    model: str
    measure: str
    value: float
    low: float | None = None
    high: float | None = None


def ask(served: Served, example: Example) -> None:
    """A question, greedily, whose run is kept."""
    image = base64.b64encode(Path(str(example.images[0])).read_bytes()).decode()
    content = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
        {"type": "text", "text": example.prompt},
    ]
    body = {"messages": [{"role": "user", "content": content}], "temperature": 0, "eyeline": {"save": True}}
    told = call(served, "POST", "/v1/chat/completions", json.dumps(body))
    if "error" in told:
        raise click.ClickException(told["error"]["message"])


def call(served: Served, method: str, path: str, body: str | None = None) -> dict[str, Any]:
    with closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=SECONDS)) as connection:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        return json.loads(connection.getresponse().read())


def audited(model: str, examples: Sequence[Example], spans: int, data: Path) -> tuple[list[Path], int | None]:
    """Files of the spans that a server has measured, in order, and after how many it raised the alarm."""
    with serving(model, options=("--audit", "1", "--data", str(data))) as served:
        for example in examples:
            ask(served, example)
        alarm, measured, since = None, 0, time.monotonic()
        while time.monotonic() - since < QUIET_S and measured < spans:
            told = call(served, "GET", "/v1/audit")
            if told["measured"] != measured:
                measured, since = told["measured"], time.monotonic()
            if told["drifted"] and alarm is None:
                alarm = measured
            time.sleep(0.2)
    files = sorted(
        data.glob(f"runs/*/{audit.FOLDER}/*.safetensors"), key=lambda path: path.stat().st_mtime_ns
    )
    return files, alarm


def again(model: Model, one: Audited, folder: Path) -> float | None:
    """The span's LDS over other subsets, of the same prediction."""
    run = read_run(folder)
    labels = torch.cat([torch.tensor(grid).flatten() for grid in run.start.regions])
    inputs = model.inputs(run.images, one.origin.messages)
    subsets = audit.draw(f"again {one.origin.run}", one.origin.span, one.subsets.shape[1])
    ids = torch.tensor(run.trace()[0][: one.origin.end], device=model.device)
    found = ablate(model, inputs, ids, hidden_patches(subsets, labels), one.origin.hiding)  # pyright: ignore
    measured = found.falls[:, one.origin.start :].sum(1)[None].float().cpu()
    if not varies(measured):
        return None
    return float(lds(one.game(subsets.T.float())[None], measured))


def mean_of(values: Sequence[tuple[str, float | None]]) -> tuple[float, float | None, float | None]:
    return audit.of_questions(values) or (float("nan"), None, None)


def shuffled(folder: Path, out: Path) -> None:
    """A model whose vision tower has learned nothing, in its folder, and an estimator that is told to fit it."""
    shutil.copytree(folder, out)
    randomised(load(folder), part="visual").hf.save_pretrained(out)
    card = out / "estimator" / "card.json"
    told = json.loads(card.read_text(encoding="utf-8"))
    card.write_text(json.dumps(told | {"fingerprint": fingerprint(load(out))}), encoding="utf-8")


@click.command()
@MODEL
@DATA
@click.option("--questions", default=40, show_default=True)
@click.option("--spans", default=200, show_default=True, help="Spans to measure, at most.")
@TABLE
def main(model_id: str, data: Path, questions: int, spans: int, out: Path) -> None:
    """Measure how near an audit's numbers are to others of the same spans, and when a swapped model is noticed."""
    examples = list(read_examples(data))[:questions]
    (folder, *_) = (Path(each) for each in own_folders(load(model_id).name))
    rows: list[Row] = []
    with writing(out), tempfile.TemporaryDirectory() as temporary:
        files, _ = audited(model_id, examples, spans, Path(temporary) / "as-it-is")
        known = [audit.read(path) for path in files[:spans]]
        model = load(model_id)
        there = [(one.origin.run, one.score.lds) for one in known]
        anew = [
            (one.origin.run, again(model, one, path.parents[1]))
            for one, path in zip(known, files, strict=False)
        ]
        rows += [
            Row("as it is", "questions", len({run for run, _ in there})), Row("as it is", "spans", len(known)),
            Row("as it is", "LDS of the audit", *mean_of(there)),
            Row("as it is", "LDS measured anew", *mean_of(anew)),
        ]  # fmt: skip
        expected = estimator_for(model).card.get("lds_held_out")  # pyright: ignore[reportOptionalMemberAccess]
        rows.append(Row("as it is", "drift sum at most", largest_drift(known, expected)))
        shuffled(folder, Path(temporary) / "swapped")
        files, alarm = audited(
            str(Path(temporary) / "swapped"), examples, spans, Path(temporary) / "of-swapped"
        )
        known = [audit.read(path) for path in files]
        rows += [
            Row("vision tower shuffled", "LDS of the audit", *mean_of([(one.origin.run, one.score.lds) for one in known])),
            Row("vision tower shuffled", "spans until the alarm", float("nan") if alarm is None else alarm),
        ]  # fmt: skip
        write_csv(Row, rows, out)
    click.echo(out.read_text(encoding="utf-8"))


def largest_drift(spans: Sequence[Audited], expected: float | None) -> float:
    record, most = Record(expected), 0.0
    for one in spans:
        record.add(one.origin.run, one.score)
        most = max(most, record.short)
    return most


if __name__ == "__main__":
    main()
