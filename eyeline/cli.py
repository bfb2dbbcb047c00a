"""The command line: parse, one library call, print. Events go to stdout, progress and errors to stderr."""

import contextlib
import math
import os
import signal
import sys
import threading
import time
import webbrowser
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import click
from PIL import Image
from rich.console import Console

import eyeline
from eyeline.errors import EyelineError
from eyeline.events import Done, Error, Event, to_json
from eyeline.files import check_room, decode_text

# What options offer; the libraries behind them are imported only by the command that needs them.
FAMILIES = ("math", "science", "document", "code", "general")
WAYS = ("pixels", "blur", "inpaint", "tokens", "attention")
FEATURES = ("attention", "value", "odds", "change")
SOURCES = ("native", "dinov3", "slic", "grid", "random", "voronoi")
LAST_SEED = 8_999_999
EXIT_CODES = {"cancelled": 130, "error": 1}  # of a stream, by the reason it ended for; otherwise 0


class _Group(click.Group):
    """A mistake of the user ends with one sentence and exit code 1, Ctrl-C with 130, --help with 0."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        for library in ("TRANSFORMERS", "HF_HUB"):  # their notices are for programmers
            os.environ.setdefault(f"{library}_VERBOSITY", "error")
        try:
            sys.exit(super().main(*args, **{**kwargs, "standalone_mode": False}) or 0)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(1)
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            hint = f" (see '{context.command_path} --help')" if context else ""
            _fail(error.format_message().rstrip(".") + hint)
        except EyelineError as error:
            _fail(str(error))
        except (KeyboardInterrupt, click.Abort):
            sys.exit(130)
        except BrokenPipeError:  # the reader of our output has gone
            _drop_stdout()
            sys.exit(1)
        except OSError as error:
            _drop_stdout()
            what = f"{str(error.filename)!r}" if error.filename else "A file or the output"
            reason = error.strerror or type(error).__name__
            _fail(f"{what} cannot be read or written ({reason}); check its path, its rights and the disk.")


class _Real(click.FloatRange):
    """A range without nan and infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class _Joined(click.ParamType):
    """Different values of another type, joined by commas."""

    name = "A,B,..."

    def __init__(self, of: click.ParamType):
        self.of = of

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        parts = (self.of.convert(part.strip(), param, ctx) for part in value.split(","))
        return tuple(dict.fromkeys(parts))


class _Text(click.File):
    """What a UTF-8 file says."""

    def __init__(self) -> None:
        super().__init__("rb")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            text = decode_text(super().convert(value, param, ctx).read())
        except ValueError as error:
            self.fail(f"{str(value)!r} cannot be read: {error}", param, ctx)
        return StringIO(text, newline=None).read()  # lines end as in any text file


class _Source(click.Choice):
    """A source of regions that cuts any image; dinov3 may name its model, the others how many regions."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        source, _, more = value.partition(":")
        if more and source != "dinov3" and not (more.isascii() and more.isdecimal() and int(more) > 1):
            self.fail(f"{more!r} is no number of regions from 2 on, as in native:32.", param, ctx)
        return value if more and source in self.choices else super().convert(value, param, ctx)


class _Seeds(click.ParamType):
    """A:B, from A up to B."""

    name = "A:B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        with contextlib.suppress(ValueError):
            first, end = (int(part) for part in value.split(":"))
            if 0 <= first < end <= LAST_SEED + 1:
                return range(first, end)
        self.fail(f"{value!r} is not A:B with 0 <= A < B <= {LAST_SEED + 1}, like 0:100.", param, ctx)


def _split(ctx: click.Context, param: click.Parameter, words: tuple[str, ...]) -> tuple[list[str], str]:
    """Images and prompt."""
    if len(words) < 2:
        raise click.UsageError("Expected an image and a prompt: chart.png 'Which bar is the tallest?'", ctx)
    if os.path.isfile(words[-1]):  # not Path: it raises for a prompt longer than a file name
        raise click.UsageError(f"Expected a prompt as the last argument, not the file {words[-1]!r}", ctx)
    return list(words[:-1]), words[-1]


def _with_room(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Refuses a file or folder that cannot be written before any work is done for it."""
    if path is not None:
        check_room(path)
    return path


def _in_a_folder(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and not path.absolute().parent.is_dir():
        raise click.BadParameter(f"There is no folder {str(path.parent)!r}; make it first", ctx, param)
    return _with_room(ctx, param, path)


PATH = click.Path(path_type=Path)
TOKENS = click.IntRange(min=1)
SEED = click.IntRange(0, 2**32 - 1)
QUESTION = click.argument("question", nargs=-1, metavar="IMAGE [IMAGE...] PROMPT", callback=_split)
MODEL = click.option(
    "--model", "model_id", default="mini", show_default=True, help="'mini', a folder, or an id on the Hub."
)
ESTIMATOR = click.option(
    "--estimator",
    show_default="the one in the model's folder; without one attention is shown, not effects",
    help="Folder of a fitted estimator, or its id on the Hub.",
)
REGIONS = click.option(
    "--regions",
    multiple=True,
    default=("native",),
    show_default=True,
    help=f"{', '.join(SOURCES)}, NAME:K for K regions, dinov3:MODEL (a folder, or an id on the Hub), or a file: a label "
    "map (.png, .npy) or boxes in pixels (.json). Once for all images, or once for each.",
)
DATA = click.option("--data", type=PATH, required=True, help="Data folder with examples.jsonl.")
SOURCE = click.option(
    "--regions",
    type=_Source(SOURCES),
    default="native",
    show_default=True,
    help="How images are cut; native:32 and the like for 32 regions, dinov3:MODEL for a folder or an id on the Hub.",
)
LENGTH = click.option(
    "--max-new-tokens", type=TOKENS, default=512, show_default=True, help="Tokens of a trace, at most."
)
LIMIT = click.option(
    "--limit", type=click.IntRange(1), show_default="all", help="Only the first so many examples."
)
JSON = click.option("--json", "as_json", is_flag=True, help="One event a line on stdout, nothing else there.")
SAVE = click.option(
    "--save", type=PATH, callback=_with_room, show_default="not saved", help="Folder to save the run in."
)
REPORT = click.option(
    "--report",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    callback=_in_a_folder,
    show_default="no report",
    help="Self-contained HTML file to write at the end.",
)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(eyeline.__version__)
def main() -> None:
    """See which parts of an image a thinking model relies on, live, while it thinks."""


@main.command()
@QUESTION
@MODEL
@ESTIMATOR
@REGIONS
@click.option(
    "--max-new-tokens", type=TOKENS, show_default="what the context allows", help="Tokens to generate."
)
@click.option(
    "--temperature",
    type=_Real(min=0),
    show_default="the model's own",
    help="Divides the logits before sampling; 0 is greedy.",
)
@click.option(
    "--top-p",
    type=_Real(0, 1, min_open=True),
    show_default="the model's own",
    help="Probability that the tokens sampled from add up to.",
)
@click.option(
    "--seed", type=SEED, show_default="another each time", help="Number that makes sampling repeatable."
)
@click.option(
    "--stop", multiple=True, show_default="none", help="Text that generation ends before. Repeatable."
)
@JSON
@SAVE
@REPORT
def stream(question, model_id, estimator, regions, as_json, save, report, top_p, **options) -> int:
    """Ask about an image, and see what each sentence of the thinking rests on while it is written."""
    options |= {"estimator": estimator, "regions": _one_or_each(regions)}
    options |= {} if top_p is None else {"top_p": top_p}
    images, prompt = question
    return _follow(
        lambda model, pictures: model.stream(pictures, prompt, **options),
        model_id, images, prompt, as_json, save, report,
    )  # fmt: skip


@main.command()
@QUESTION
@click.option("--text", type=_Text(), required=True, help="UTF-8 file of the trace; - for stdin.")
@MODEL
@ESTIMATOR
@REGIONS
@JSON
@SAVE
@REPORT
def attribute(question, text, model_id, estimator, regions, as_json, save, report) -> int:
    """Attribute a trace that is already written, its markers included, as if the model wrote it now."""
    images, prompt = question
    options = {"estimator": estimator, "regions": _one_or_each(regions)}
    return _follow(
        lambda model, pictures: model.attribute(pictures, prompt, text, **options),
        model_id, images, prompt, as_json, save, report,
    )  # fmt: skip


@main.command()
@click.option(
    "--family", type=click.Choice(FAMILIES), default="code", show_default=True, help="Family of scenes."
)
@click.option(
    "--seed",
    type=click.IntRange(0, LAST_SEED),
    default=8_000_001,
    show_default=True,
    help="Number of the scene; from 8000000 on: test scenes.",
)
@click.option(
    "--out",
    type=PATH,
    default=Path("demo"),
    callback=_with_room,
    show_default=True,
    help="Folder for the run and report.html.",
)
@MODEL
@JSON
def demo(family, seed, out, model_id, as_json) -> int:
    """Ask about a scene drawn for the occasion, and write a report."""
    from eyeline.scenes import sample

    example = sample(family, seed)
    click.echo(f"{example.prompt}  ({family} scene {seed}; right answer: {example.answer!r})", err=True)
    return _follow(
        lambda model, pictures: model.stream(pictures, example.prompt, temperature=0),
        model_id, [example.image], example.prompt, as_json, out / "run", out / "report.html",
    )  # fmt: skip


@main.command()
@click.argument("run", type=PATH)
@click.option(
    "--out", type=PATH, callback=_with_room, show_default="RUN/report.html", help="HTML file to write."
)
def report(run, out) -> None:
    """Write a self-contained HTML report of a saved run."""
    from eyeline.report import write_report
    from eyeline.runs import read_run

    out = out or run / "report.html"
    write_report(read_run(run), out)
    click.echo(f"Report: {out}", err=True)


@main.command()
@click.argument("run", type=PATH)
@click.option("--span", type=click.IntRange(0), show_default="none", help="Number of the span to ask about.")
@click.option(
    "--words",
    show_default="none",
    help="Words to ask about, that stand in the text once; $.total: a JSON field of the answer.",
)
@click.option(
    "--characters",
    type=_Joined(click.IntRange(0)),
    show_default="none",
    help="Characters to ask about, START,END, of all text joined.",
)
@click.option(
    "--regions",
    type=_Joined(click.IntRange(0)),
    show_default="none",
    help="Numbers of regions to hide together, joined by commas.",
)
@JSON
def joint(run, span, words, characters, regions, as_json) -> None:
    """Predict what hiding regions together would do to some words of a saved run; no model is needed."""
    import json
    from dataclasses import asdict

    from eyeline.runs import read_run

    targets = [target for target in (span, words, characters) if target is not None]
    if len(targets) != 1:
        raise EyelineError("Give one of --span, --words or --characters, to say what is asked about.")
    found = read_run(run).joint(targets[0], regions or ())
    if as_json:
        return click.echo(json.dumps(asdict(found)))
    names = ", ".join(map(str, found.regions)) or "none"
    click.echo(
        f"regions {names} hidden together: {found.fall:.2f} nats (each alone, added up: {found.parts:.2f})"
    )
    click.echo(f"everything hidden: {found.whole_image:.2f} nats, of which each region contributes:")
    order = sorted(range(len(found.contributions)), key=lambda region: -found.contributions[region])
    for region in order[:8]:
        click.echo(
            f"  region {region}: {found.contributions[region]:.2f} nats (alone {found.effects[region]:.2f})"
        )


@main.command()
@click.option(
    "--family",
    "families",
    type=click.Choice(FAMILIES),
    multiple=True,
    show_default="all",
    help="Family of scenes. Repeatable.",
)
@click.option(
    "--seeds",
    type=_Seeds(),
    default="0:100",
    show_default=True,
    help="One scene of each family for each number.",
)
@click.option(
    "--wild",
    is_flag=True,
    help="As somebody's photograph: small, askew, noisy, among other things; and with longer traces.",
)
@click.option(
    "--long",
    "is_long",
    is_flag=True,
    help="Other scenes, which hold more, are asked about in several parts and told in hundreds of tokens.",
)
@click.option(
    "--pairs",
    is_flag=True,
    help="With each scene its counterfactual, where one thing that differs changes the answer.",
)
@click.option("--out", type=PATH, required=True, callback=_with_room, help="Data folder to write.")
def scenes(families, seeds, wild, is_long, pairs, out) -> None:
    """Draw scenes with questions, answers and evidence, as a data folder."""
    from eyeline.examples import write_examples
    from eyeline.scenes import counterfactual, sample

    if pairs and is_long:
        raise EyelineError("Long scenes have no counterfactuals: give --long or --pairs, not both.")
    families = families or FAMILIES
    numbers = _progress(((family, seed) for seed in seeds for family in families), len(seeds) * len(families))
    drawn = (
        one
        for of in numbers
        for one in (
            sample(*of, wild=wild, is_long=is_long),
            counterfactual(*of, wild=wild) if pairs else None,
        )
    )
    count = write_examples((each for each in drawn if each is not None), out)
    click.echo(f"{count} examples in {out}", err=True)


@main.command()
@MODEL
@DATA
@click.option(
    "--out",
    type=PATH,
    required=True,
    callback=_with_room,
    help="Folder of the collection; goes on where it holds one.",
)
@click.option(
    "--hiding",
    type=click.Choice(WAYS),
    default="pixels",
    show_default=True,
    help="How a region is hidden; `attention` (knockout) is several times faster and leaves what has spread to neighbours.",
)
@SOURCE
@click.option(
    "--rates",
    type=_Joined(_Real(0, 1, min_open=True, max_open=True)),
    default="0.5,0.25,0.1",
    show_default=True,
    help="Probabilities of hiding a region, joined by commas.",
)
@click.option(
    "--subsets", type=click.IntRange(2), default=12, show_default=True, help="Random subsets at each rate."
)
@click.option(
    "--max-spans",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Spans to keep of a trace, spread evenly; features of their tokens are what fills the disk.",
)
@LENGTH
@click.option(
    "--seed", type=SEED, default=0, show_default=True, help="Number that the random subsets depend on."
)
@LIMIT
def collect(model_id, data, out, limit, rates, **settings) -> None:
    """Measure what hiding regions does to the model's own traces: the data an estimator is fitted on."""
    from itertools import islice

    from eyeline import load
    from eyeline.examples import read_examples
    from eyeline.training import collect as collection

    examples = list(islice(read_examples(data), limit))
    done = collection.collect(load(model_id), examples, out, collection.Settings(rates=rates, **settings))
    count = sum(1 for _ in _progress(done, len(examples)))
    click.echo(f"{count} examples in {out}", err=True)


@main.command()
@click.argument("run", type=PATH)
@click.option(
    "--out", type=PATH, required=True, callback=_with_room, help="Folder of the estimator to write."
)
@click.option(
    "--kinds",
    type=_Joined(click.Choice(FEATURES)),
    default="value,odds,change",
    show_default=True,
    help="Features, joined by commas; 'attention' alone is the paper's, with the link 'identity'.",
)
@click.option(
    "--link",
    type=click.Choice(["log-odds", "identity"]),
    default="log-odds",
    show_default=True,
    help="What scores are: falls in a token's log-odds, or in its log-prob itself.",
)
@click.option(
    "--hidden",
    type=click.IntRange(0),
    default=32,
    show_default=True,
    help="Number of hidden units of the network beside the linear map; 0 for none, as with the link 'identity'.",
)
@click.option(
    "--heads",
    type=_Real(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Share of the heads to keep, those that matter most; layers without any of them are not captured.",
)
@click.option(
    "--layers",
    type=click.IntRange(1),
    show_default="from the model's configuration",
    help="Number of layers of the language model, to tell by layer which heads are kept.",
)
@click.option("--name", show_default="the folder's name", help="Id that the estimator carries.")
def fit(run, out, kinds, link, hidden, heads, layers, name) -> None:
    """Fit an estimator on a collection."""
    from eyeline.estimator import save_estimator
    from eyeline.training.collect import read_collected, read_run
    from eyeline.training.fit import fit as fit_estimator
    from eyeline.training.weights import FitSettings

    about = read_run(run)
    name = name or out.resolve().name
    settings = FitSettings(kinds=kinds, link=link, hidden=hidden, heads=heads)
    estimator, _ = fit_estimator(read_collected(run), about, settings, name, layers)
    save_estimator(estimator, out)
    click.echo(f"Estimator: {out} (loss {estimator.card['loss']})", err=True)


@main.command()
@MODEL
@click.option(
    "--estimator",
    "estimators",
    multiple=True,
    show_default="the one in the model's folder",
    help="Folder of a fitted estimator, or its id on the Hub. Repeatable.",
)
@DATA
@click.option(
    "--out",
    type=PATH,
    required=True,
    callback=_with_room,
    help="Folder for measurements, table.csv, page.html and its figures; goes on where it holds some.",
)
@click.option(
    "--methods",
    default="eyeline,random,raw-attention,exhaustive",
    show_default=True,
    help="Rivals, joined by commas; 'eyeline' stands for the estimators, 'all' for everything.",
)
@click.option(
    "--hiding",
    type=click.Choice(WAYS),
    show_default="as the first estimator's card says, or pixels",
    help="How a region is hidden.",
)
@SOURCE
@click.option(
    "--ordered",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Number of orders, and their reverses, by which contributions are measured: twice so many passes for each region.",
)
@LENGTH
@click.option(
    "--seed", type=SEED, default=1, show_default=True, help="Number that the random subsets depend on."
)
@LIMIT
def evaluate(model_id, estimators, data, out, methods, hiding, limit, **settings) -> None:
    """Measure how well estimators and their rivals predict what hiding regions really does."""
    from itertools import islice

    from eyeline import load
    from eyeline.evaluation.evaluate import Settings, choose_methods
    from eyeline.evaluation.evaluate import evaluate as measure
    from eyeline.evaluation.page import write_results
    from eyeline.examples import read_examples

    examples = list(islice(read_examples(data), limit))
    model = load(model_id)
    chosen = choose_methods(model, methods.split(","), estimators, hiding)
    for name, estimator in chosen.estimators.items():
        fitted = estimator.card.get("regions", settings["regions"])
        if fitted != settings["regions"]:
            click.echo(
                f"{name} was fitted on {fitted} regions and is measured on {settings['regions']}.", err=True
            )
    made_with = Settings(methods=tuple(chosen.methods), hiding=chosen.hiding, **settings)
    done = measure(model, examples, chosen.methods, out, made_with, chosen.cards)
    count = sum(1 for _ in _progress(done, len(examples)))
    write_results(model, chosen, out)
    click.echo(f"{count} examples: {out / 'table.csv'}, {out / 'page.html'}", err=True)


@main.command()
@MODEL
@ESTIMATOR
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Number of the TCP port."
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("eyeline-data"),
    show_default=True,
    help="Folder that runs are kept in.",
)
@click.option(
    "--api-key",
    envvar="EYELINE_API_KEY",
    show_default="none",
    help="Key that clients send; others on this machine can read it here, so better EYELINE_API_KEY or a file.",
)
@click.option("--api-key-file", type=_Text(), show_default="none", help="File of the key.")
@click.option(
    "--no-key",
    is_flag=True,
    help="Serve without a key on an address that others can reach.",
)
@click.option(
    "--allow-host",
    multiple=True,
    show_default="none",
    help="Name that this server is reached by. Repeatable.",
)
@click.option(
    "--allow-remote-images",
    multiple=True,
    metavar="HOST",
    show_default="none",
    help="Host that images may be fetched from. Repeatable.",
)
@click.option(
    "--max-tokens", type=TOKENS, default=4096, show_default=True, help="Tokens of an answer, at most."
)
@click.option(
    "--queue",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Number of questions that may wait.",
)
@click.option(
    "--grace", type=_Real(0), default=30, show_default=True, help="Seconds that questions have when it stops."
)
@click.option(
    "--open", "opens", is_flag=True, help="Open the page in a browser, where this machine shows one."
)
def serve(
    model_id, estimator, api_key, api_key_file, no_key, allow_host, allow_remote_images, opens, **options
) -> None:
    """Serve a page to watch the model on, and an API that OpenAI's clients speak."""
    from eyeline.server import app
    from eyeline.server.safety import Settings

    if api_key_file is not None:
        api_key = api_key_file.strip()
    settings = Settings(
        api_key=api_key or None, allow_no_key=no_key, allow_hosts=allow_host, remote_images=allow_remote_images, **options
    )  # fmt: skip

    def ready(url: str) -> None:
        click.echo(f"Serving {url}", err=True)
        if opens:
            _open_page(url)

    click.echo(f"Loading {model_id} ...", err=True)
    app.serve(settings, model_id, estimator, ready)


def _follow(
    begin: Callable[[Any, list[Image.Image]], Any],
    model_id: str,
    images: list[Any],
    prompt: str,
    as_json: bool,
    save: Path | None,
    report: Path | None,
) -> int:
    """Loads the model, shows the events of a stream as they come, keeps them where asked to; the exit code.

    What can be refused without the model is refused before it is loaded, and nothing is written before the
    stream has begun.
    """
    from eyeline import load
    from eyeline.images import open_image
    from eyeline.report import write_report
    from eyeline.runs import Run, save_run

    pictures = [open_image(image) for image in images]
    saved = None if save is None else save_run(save, pictures, prompt)
    events: list[Event] = []
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(begin(load(model_id), pictures))
        stack.enter_context(_interruptible(stream))
        takers: list[Callable[[Event], Any]] = [events.append]
        if saved is not None:
            takers.append(stack.enter_context(saved).write)
        takers.append(_print_json if as_json else _view(stack, pictures))
        for event in stream:
            for take in takers:
                take(event)
        if saved is not None:
            saved.keep(stream.games)
    if report is not None:
        write_report(Run(prompt, tuple(pictures), tuple(events)), report)
        click.echo(f"Report: {report}", err=True)
    done = events[-1]
    assert isinstance(done, Done), "always last"
    if done.reason == "error":
        raise EyelineError(next(event.message for event in reversed(events) if isinstance(event, Error)))
    return EXIT_CODES.get(done.reason, 0)


@contextlib.contextmanager
def _interruptible(stream: Any) -> Iterator[None]:
    """Ctrl-C ends generation, and what is on its way still comes; a second one ends the program."""
    default = signal.default_int_handler

    def close(*_: object) -> None:
        signal.signal(signal.SIGINT, default)
        stream.close()

    if signal.getsignal(signal.SIGINT) is not default:  # ignored, as in the background of a script
        yield
        return
    signal.signal(signal.SIGINT, close)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, default)


def _view(stack: contextlib.ExitStack, pictures: list[Image.Image]) -> Callable[[Event], None]:
    from eyeline.terminal import TerminalView

    return stack.enter_context(TerminalView(Console(), pictures)).show


def _print_json(event: Event) -> None:
    click.echo(to_json(event).encode("utf-8", "replace"))  # JSON is UTF-8, whatever the terminal's encoding


def _progress(items: Iterable[Any], total: int) -> Iterator[Any]:
    """The same items, with a bar and the time left on stderr; in a log a line each half minute and at the end."""
    console = Console(stderr=True)
    if console.is_terminal and not console.is_dumb_terminal and not console.no_color:
        from rich import progress

        columns = (progress.BarColumn(), progress.MofNCompleteColumn(), progress.TimeElapsedColumn())
        columns = (*columns, progress.TextColumn("left"), progress.TimeRemainingColumn())
        with progress.Progress(*columns, console=console) as bar:
            yield from bar.track(items, total=total)
        return
    told = time.monotonic()
    times = deque([told], maxlen=30)  # of the last items: what an earlier run had done took no time
    for number, item in enumerate(items, start=1):
        yield item
        times.append(time.monotonic())
        if times[-1] - told >= 30 or number == total:
            told = times[-1]
            left = (told - times[0]) / (len(times) - 1) * (total - number)
            click.echo(f"{number} of {total}, {left / 60:.0f} min left", err=True)


def _one_or_each(regions: tuple[str, ...]) -> str | list[str]:
    return regions[0] if len(regions) == 1 else list(regions)


def _open_page(url: str) -> None:
    """In a browser that has a window or was named: one in the terminal would take it from us."""
    if sys.platform in ("darwin", "win32") or any(
        map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
    ):
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()  # it may wait for its end


def _drop_stdout() -> None:
    """Sends what is left of the output nowhere, so that Python does not complain about it on its way out."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(sentence: str) -> None:
    click.echo(f"Error: {sentence.rstrip('.')}.", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
