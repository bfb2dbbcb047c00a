"""Commands that look at the machine: doctor, models."""

import click
from rich import box
from rich.console import Console
from rich.table import Table


@click.command()
def doctor() -> None:
    """Say what is installed, and what a model would run on here."""
    from eyeline.doctor import examine

    table = Table(box=box.SIMPLE, show_header=False)
    for finding in examine():
        mark = "[green]✓[/]" if finding.works else "[yellow]–[/]"
        table.add_row(mark, finding.what, finding.found, finding.advice)
    Console().print(table)


@click.command()
def models() -> None:
    """List the families of models that are supported, and the models that are on this computer."""
    from eyeline.adapters import ADAPTERS
    from eyeline.doctor import GB, at_hand

    families = Table("family", "models", box=box.SIMPLE, title="Supported", title_justify="left")
    for family, adapter in sorted(ADAPTERS.items()):
        families.add_row(family, ", ".join(adapter.models))
    here = Table(
        "--model", "family", "GB", "estimator", "where", box=box.SIMPLE, title="At hand", title_justify="left"
    )
    for model in at_hand():
        fitted = "its own" if model.estimator else "general"
        here.add_row(model.name, model.family, f"{model.size / GB:.2f}", fitted, model.place)
    console = Console()
    console.print(families)
    console.print(here)
