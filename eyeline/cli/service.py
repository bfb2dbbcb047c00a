"""The command that serves."""

import os
import sys
import threading
import webbrowser
from pathlib import Path

import click

from eyeline.cli.chosen_model import takes_model
from eyeline.cli.options import ESTIMATOR, TOKENS
from eyeline.cli.values import Real, Text


@click.command()
@takes_model
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
@click.option("--api-key-file", type=Text(), show_default="none", help="File of the key.")
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
    "--grace", type=Real(0), default=30, show_default=True, help="Seconds that questions have when it stops."
)
@click.option(
    "--open", "opens", is_flag=True, help="Open the page in a browser, where this machine shows one."
)
def serve(
    model, estimator, api_key, api_key_file, no_key, allow_host, allow_remote_images, opens, **options
) -> None:
    """Serve a page to watch the model on, and an API that OpenAI's clients speak."""
    from eyeline.server import serving
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

    click.echo(f"Loading {model.name} ...", err=True)
    serving.serve(settings, model.name, estimator, ready, model.options)


def _open_page(url: str) -> None:
    """In a browser that has a window or was named: one in the terminal would take it from us."""
    if sys.platform in ("darwin", "win32") or any(
        map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
    ):
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()  # it may wait for its end
