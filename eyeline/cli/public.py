"""The command that lists public data sets, and shows one."""

import textwrap

import click

from eyeline.cli.options import FOLDER

SHOWN = 3  # examples
LONGEST = 600  # characters of a text


@click.command()
@click.argument("name", required=False)
@FOLDER
def data(name, folder) -> None:
    """List the public data sets that --data takes by name, or say what NAME holds and show three of its questions."""
    from eyeline.catalogue import SETS, PublicExamples, find_set
    from eyeline.catalogue.rows import count_rows
    from eyeline.errors import EyelineError
    from eyeline.images import open_image

    if name is None:
        if folder is not None:
            raise EyelineError(
                "--folder holds one set: say which, as in eyeline data mathvista --folder DIR."
            )
        for found in SETS.values():
            rows = "" if found.rows is None else f"{found.rows:,}"
            click.echo(f"{found.name:14}{found.family:9}{rows:>10}  {found.licence}")
            click.echo(f"{'':35}{found.rule}")
        return
    found = find_set(name)
    rows = found.rows if folder is None else count_rows(found, folder)
    click.echo(
        f"{found.name}: {found.family}; {' or '.join(found.hub) or 'a release to unpack'}, {found.split}"
    )
    click.echo(f"rows: {'not said by its card' if rows is None else f'{rows:,}'}")
    click.echo(f"licence: {found.licence}")
    click.echo(f"rule: {found.rule}")
    if found.note:
        click.echo(f"note: {found.note}")
    for example in PublicExamples(found, "all", folder, SHOWN, few=True):
        sizes = ", ".join("{} x {}".format(*open_image(image).size) for image in example.images)
        click.echo(f"\n{example.id}: {sizes}")
        click.echo(textwrap.indent(_short(example.prompt), "  "))
        click.echo(f"  answer: {_short(example.answer)}")


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
