"""The command that draws scenes."""

import click

from eyeline.cli.choices import FAMILIES
from eyeline.cli.options import out
from eyeline.cli.progress import progress, several
from eyeline.cli.values import Seeds
from eyeline.errors import EyelineError


@click.command()
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
    type=Seeds(),
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
@out("Data folder to write.")
def scenes(families, seeds, wild, is_long, pairs, out) -> None:
    """Draw scenes with questions, answers and evidence, as a data folder."""
    from eyeline.examples import write_examples
    from eyeline.scenes import counterfactual, sample

    if pairs and is_long:
        raise EyelineError("Long scenes have no counterfactuals: give --long or --pairs, not both.")
    families = families or FAMILIES
    numbers = progress(((family, seed) for seed in seeds for family in families), len(seeds) * len(families))
    drawn = (
        one
        for of in numbers
        for one in (
            sample(*of, wild=wild, is_long=is_long),
            counterfactual(*of, wild=wild) if pairs else None,
        )
    )
    count = write_examples((each for each in drawn if each is not None), out)
    click.echo(f"{several(count, 'example')} in {out}", err=True)
