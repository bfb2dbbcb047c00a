"""Commands on the estimators that are kept for the user's own models."""

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eyeline.cli.options import PATH, with_room

NAME = click.argument("name", metavar="ID")


@click.group(invoke_without_command=True)
@click.pass_context
def estimators(context) -> None:
    """List the estimators that are kept for your models; with a command, show, remove or export one, or put it on the Hub.

    ID is the estimator's, or FINGERPRINT/ID where several models have one of that id; the first digits do.
    """
    if context.invoked_subcommand is None:
        _list()


def _list() -> None:
    from eyeline.estimator_card import images, level
    from eyeline.estimator_files import kept_in
    from eyeline.estimator_store import kept

    found = kept()
    if not found:
        return click.echo(f"No estimator is kept in {kept_in()}; eyeline fit RUN writes one there.", err=True)
    table = Table("id", "model", "level", "images", "date", "LDS", "used", box=box.SIMPLE)
    for one in found:
        if one.card is None:
            table.add_row(escape(one.id), one.fingerprint[:12], "damaged: fit it again", "", "", "", "")
            continue
        lds = one.card.get("lds_held_out")
        table.add_row(
            *map(escape, (
                one.id, str(one.card.get("model", "")), level(one.card), str(images(one.card) or ""),
                str(one.card.get("created", ""))[:10], "" if lds is None else f"{lds:.2f}", "yes" if one.used else "no",
            ))
        )  # fmt: skip
    Console().print(table)


@estimators.command()
@NAME
def show(name) -> None:
    """Say what an estimator is, in plain words."""
    from eyeline.estimator_card import describe
    from eyeline.estimator_files import read_card
    from eyeline.estimator_store import find_kept

    one = find_kept(name)
    click.echo(one.id)
    for sentence in describe(read_card(one.folder)):
        click.echo(f"  {sentence}")
    click.echo(f"  It lies in {one.folder}, and is{'' if one.used else ' not'} used where no other is given.")


@estimators.command()
@NAME
def remove(name) -> None:
    """Remove an estimator; an older one for the same model, or the one in the model's folder, is used again."""
    from eyeline import estimator_store

    one = estimator_store.find_kept(name)
    estimator_store.remove(one)
    click.echo(f"Removed: {one.folder}", err=True)


@estimators.command()
@NAME
@click.argument("folder", type=PATH, callback=with_room)
def export(name, folder) -> None:
    """Write an estimator to a folder, with a README, to give to others."""
    from eyeline import estimator_store

    estimator_store.export(estimator_store.find_kept(name), folder)
    click.echo(f"Estimator: {folder}", err=True)


@estimators.command()
@NAME
@click.argument("repo", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="The repository is to be private; a public one is refused.")
@click.option("--revision", show_default="main", help="Branch to put it on.")
def push(name, repo, private, revision) -> None:
    """Put an estimator on the Hugging Face Hub, with a model card; log in with `hf auth login` first."""
    from eyeline import Estimator
    from eyeline.estimator_store import find_kept

    one = Estimator.from_pretrained(find_kept(name).folder)
    click.echo(one.push_to_hub(repo, private=private or None, revision=revision))
