"""The command that serves."""

import os
import sys
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from eyeline.cli.chosen_model import takes_model
from eyeline.cli.options import ESTIMATOR, TOKENS, Command
from eyeline.cli.values import Real, Text


def _of_a_server(port: int, data: str) -> Callable[[Command], Command]:
    """Options of everything that serves."""
    options = (
        click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
        click.option(
            "--port",
            type=click.IntRange(1, 65535),
            default=port,
            show_default=True,
            help="Number of the TCP port.",
        ),
        click.option(
            "--data",
            type=click.Path(file_okay=False, path_type=Path),
            default=Path(data),
            show_default=True,
            help="Folder that runs are kept in.",
        ),
        click.option(
            "--api-key",
            envvar="EYELINE_API_KEY",
            show_default="none",
            help="Key that clients send; others on this machine can read it here, so better EYELINE_API_KEY or a file.",
        ),
        click.option("--api-key-file", type=Text(), show_default="none", help="File of the key."),
        click.option(
            "--no-key", is_flag=True, help="Serve without a key on an address that others can reach."
        ),
        click.option(
            "--allow-host",
            multiple=True,
            show_default="none",
            help="Name that this server is reached by. Repeatable.",
        ),
        click.option(
            "--allow-origin",
            multiple=True,
            metavar="ORIGIN",
            show_default="none",
            help="Site whose pages may use the API from a browser, as in https://lab.example. Repeatable.",
        ),
        click.option(
            "--root-path",
            default="",
            metavar="PREFIX",
            show_default="none",
            help="Prefix below which a proxy lets others reach this server, as in /eyeline.",
        ),
        click.option(
            "--allow-remote-images",
            multiple=True,
            metavar="HOST",
            show_default="none",
            help="Host that images may be fetched from. Repeatable.",
        ),
        click.option(
            "--grace",
            type=Real(0),
            default=30,
            show_default=True,
            help="Seconds that questions have when it stops.",
        ),
    )

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.command()
@takes_model
@ESTIMATOR
@_of_a_server(8000, "eyeline-data")
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
    "--audit",
    type=Real(0, 1, min_open=True),
    is_flag=False,
    flag_value=0.2,
    metavar="[SHARE]",
    show_default="not at all; 0.2 where no share is given",
    help="Check predictions of saved runs by really hiding regions while nobody waits, for at most this share of the time.",
)
@click.option(
    "--open", "opens", is_flag=True, help="Open the page in a browser, where this machine shows one."
)
def serve(
    model,
    estimator,
    api_key,
    api_key_file,
    no_key,
    allow_host,
    allow_origin,
    allow_remote_images,
    audit,
    opens,
    **options,
) -> None:
    """Serve a page to watch the model on, and an API that OpenAI's clients speak."""
    from eyeline.server import serving

    settings = _settings(
        api_key, api_key_file, no_key, allow_host, allow_origin, allow_remote_images, **options
    )

    def ready(url: str) -> None:
        click.echo(f"Serving {url}", err=True)
        if opens:
            _open_page(url)

    click.echo(f"Loading {model.name} ...", err=True)
    serving.serve(settings, model.name, estimator, ready, model.options, audit=audit)


def _settings(api_key, api_key_file, no_key, allow_host, allow_origin, allow_remote_images, **options) -> Any:
    from eyeline.server.safety import Settings

    if api_key_file is not None:
        api_key = api_key_file.strip()
    return Settings(
        api_key=api_key or None, allow_no_key=no_key, allow_hosts=allow_host, allow_origins=allow_origin,
        remote_images=allow_remote_images, **options,
    )  # fmt: skip


@click.command()
@click.option(
    "--base-url", required=True, metavar="URL", help="The server that writes, up to /v1: http://host:8000/v1."
)
@takes_model
@ESTIMATOR
@click.option(
    "--served-as",
    metavar="NAME",
    show_default="the model's own",
    help="Name of the model on that server.",
)
@click.option(
    "--upstream-key",
    envvar="EYELINE_UPSTREAM_KEY",
    show_default="none",
    help="Key that the server wants; others on this machine can read it here, so better EYELINE_UPSTREAM_KEY or a file.",
)
@click.option("--upstream-key-file", type=Text(), show_default="none", help="File of that key.")
@click.option("--pass-key", is_flag=True, help="Send the client's own key on to the server.")
@click.option(
    "--forward-images",
    "forward",
    type=click.Choice(("fixed", "as-is")),
    default="fixed",
    show_default=True,
    help="fixed: images go on upright and resized as the model's image processor does, so that both see the same pixels; "
    "as-is: as the client sends them.",
)
@click.option(
    "--side-channel",
    is_flag=True,
    help="Leave what clients get as the server sends it, to the byte; events are in /v1/runs and on the page alone.",
)
@click.option(
    "--save/--no-save", default=True, show_default=True, help="Keep the runs of answers that were followed."
)
@click.option(
    "--linger",
    type=Real(0),
    default=5,
    show_default=True,
    help="Seconds that the line which ends a stream waits for the last events.",
)
@click.option(
    "--at-once",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Number of answers that are followed at the same time; others wait, and lose nothing.",
)
@click.option(
    "--queue",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Number of answers that may wait to be followed.",
)
@_of_a_server(8001, "eyeline-follow")
def follow(
    base_url, model, estimator, served_as, upstream_key, upstream_key_file, pass_key, forward, side_channel, save,
    linger, at_once, **options,
) -> None:  # fmt: skip
    """Stand before another OpenAI-compatible server, pass on what it writes, and attribute it live."""
    from eyeline.proxy import proxying, upstream

    key = upstream_key_file.strip() if upstream_key_file is not None else upstream_key
    settings = _settings(**options)
    found = upstream.find(base_url, model.name, served_as, key or None, passes_key=pass_key)
    own = proxying.ProxySettings(found, forward, side_channel, save, linger, at_once)

    def ready(url: str) -> None:
        click.echo(f"Following {found.kind.name} at {found.url}: give clients {url}/v1", err=True)

    click.echo(f"Loading {model.name} ...", err=True)
    proxying.serve_proxy(own, settings, model.name, estimator, ready, model.options)


def _open_page(url: str) -> None:
    """In a browser that has a window or was named: one in the terminal would take it from us."""
    if sys.platform in ("darwin", "win32") or any(
        map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
    ):
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()  # it may wait for its end
