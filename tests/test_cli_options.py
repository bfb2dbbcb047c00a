"""What options offer and say."""

import click
import pytest
from command import succeed

from eyeline.ablation import METHODS
from eyeline.cli import choices, main
from eyeline.features import KINDS
from eyeline.load_options import BITS, DTYPES, MAPS
from eyeline.regions import SOURCES
from eyeline.scenes import FAMILIES, MAX_SEED


def test_the_options_offer_what_the_library_has():
    assert tuple(FAMILIES) == choices.FAMILIES
    assert tuple(SOURCES) == choices.SOURCES
    assert KINDS == choices.FEATURES
    assert tuple(METHODS) == choices.WAYS
    assert MAX_SEED == choices.LAST_SEED
    assert tuple(DTYPES) == choices.DTYPES
    assert MAPS == choices.MAPS
    assert tuple(BITS) == choices.BITS


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_option_says_what_it_is_and_its_default(name):
    command = main.commands[name]
    page = " ".join(succeed(name, "--help").stdout.split())
    assert command.help
    for option in command.params:
        if isinstance(option, click.Option):
            shown = page.partition(f"{option.opts[-1]} ")[2].partition(" --")[0]
            assert option.help
            assert option.is_flag or "[default: " in shown or "required]" in shown, shown
            assert not isinstance(option.type, click.types.IntParamType) or any(
                unit in option.help.lower() for unit in ("token", "number", "subsets", "examples")
            )
