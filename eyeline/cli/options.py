"""Arguments and options that several commands share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from eyeline.cli.choices import SOURCES, WAYS
from eyeline.cli.values import Source
from eyeline.files import check_room


def _split(ctx: click.Context, param: click.Parameter, words: tuple[str, ...]) -> tuple[list[str], str]:
    """Images and prompt; nothing where a file of questions is given in their place."""
    if not words and ctx.params.get("data") is not None:
        return [], ""
    if len(words) < 2:
        raise click.UsageError("Expected an image and a prompt: chart.png 'Which bar is the tallest?'", ctx)
    if os.path.isfile(words[-1]):  # not Path: it raises for a prompt longer than a file name
        raise click.UsageError(f"Expected a prompt as the last argument, not the file {words[-1]!r}", ctx)
    return list(words[:-1]), words[-1]


def with_room(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Refuses a file or folder that cannot be written before any work is done for it."""
    if path is not None:
        check_room(path)
    return path


def _in_a_folder(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and not path.absolute().parent.is_dir():
        raise click.BadParameter(f"There is no folder {str(path.parent)!r}; make it first", ctx, param)
    return with_room(ctx, param, path)


Command = TypeVar("Command", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
TOKENS = click.IntRange(min=1)
SEED = click.IntRange(0, 2**32 - 1)
QUESTION = click.argument("question", nargs=-1, metavar="IMAGE [IMAGE...] PROMPT", callback=_split)
ESTIMATOR = click.option(
    "--estimator",
    show_default="your own for the model, else the one in its folder, else the general one",
    help="Folder of a fitted estimator, or its id on the Hub; `attention` shows shares of attention instead, not effects.",
)
REGIONS = click.option(
    "--regions",
    multiple=True,
    default=("native",),
    show_default=True,
    help=f"{', '.join(SOURCES)}, NAME:K for K regions, dinov3:MODEL (a folder, or an id on the Hub), or a file: a label "
    "map (.png, .npy) or boxes in pixels (.json). Once for all images, or once for each.",
)
DATA = click.option(
    "--data",
    required=True,
    help="Data folder with examples.jsonl, or a public set by name (`eyeline data` lists them); NAME:fit, NAME:test or NAME:all "
    "for a part of one.",
)
OF_MODEL = (
    "your own for the model, else that in its folder, else the general one"  # estimators, where none is given
)
FOLDER = click.option(
    "--folder", type=PATH, show_default="from the Hub", help="Folder with a copy of the public set."
)
HIDING = click.option(
    "--hiding",
    type=click.Choice(WAYS),
    default="pixels",
    show_default=True,
    help="How a region is hidden; `attention` (knockout) is several times faster and leaves what has spread to neighbours.",
)
SOURCE = click.option(
    "--regions",
    type=Source(SOURCES),
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
EARLIER = click.option(
    "--sources/--no-sources",
    default=True,
    show_default=True,
    help="Read earlier text as well: which sentences a sentence takes from, and what the answer rests on through them.",
)
WHOLE = click.option(
    "--measure-whole/--predict-whole",
    default=False,
    show_default=True,
    help="Read the text once more without its images: what hiding all of them does is then measured.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="One event a line on stdout, nothing else there.")
SAVE = click.option(
    "--save", type=PATH, callback=with_room, show_default="not saved", help="Folder to save the run in."
)
REPORT = click.option(
    "--report",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    callback=_in_a_folder,
    show_default="no report",
    help="Self-contained HTML file to write at the end.",
)


def out(help: str) -> Callable[[Command], Command]:
    """What a command writes; it cannot do without."""
    return click.option("--out", type=PATH, required=True, callback=with_room, help=help)


def subset_seed(default: int) -> Callable[[Command], Command]:
    """What the random subsets of regions are drawn by."""
    return click.option(
        "--seed",
        type=SEED,
        default=default,
        show_default=True,
        help="Number that the random subsets depend on.",
    )
