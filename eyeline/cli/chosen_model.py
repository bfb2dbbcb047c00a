"""Which model a command runs, and how it is loaded: options that all commands with a model share."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from eyeline.cli.choices import BITS, DTYPES, MAPS

Command = TypeVar("Command", bound=Callable[..., Any])
OPTIONS = (
    click.option(
        "--model", "model_id", default="mini", show_default=True, help="'mini', a folder, or an id on the Hub."
    ),
    click.option(
        "--dtype",
        type=click.Choice(DTYPES),
        show_default="float32 on CPU, else that of the weights",
        help="Precision that the model runs in.",
    ),
    click.option(
        "--device", show_default="cuda where there is one, else cpu", help="Where the model runs: cpu, cuda:1, mps ..."
    ),
    click.option(
        "--device-map",
        metavar="MAP",
        show_default="one device",
        help=f"How the model is laid on several devices, the CPU and the disk: {', '.join(MAPS)}, or a JSON file of modules "
        "and their devices. Needs accelerate.",
    ),
    click.option(
        "--quantize",
        type=click.Choice([str(bits) for bits in BITS]),
        show_default="as the weights are",
        help="Bits of a weight of the language model. Needs bitsandbytes or torchao.",
    ),
    click.option("--revision", show_default="main", help="Branch, tag or commit of a model on the Hub."),
    click.option("--adapter", show_default="none", help="LoRA to add: a folder, or an id on the Hub. Needs peft."),
    click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model."),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ChosenModel:
    """The model that a command line names."""

    name: str
    options: Mapping[str, Any]  # those of `eyeline.load` that are given

    def load(self) -> Any:
        from eyeline import load

        return load(self.name, **self.options)


def takes_model(command: Command) -> Command:
    """Gives a command `model`, a `ChosenModel`, in place of the options that make one."""

    @functools.wraps(command)
    def with_model(
        model_id, dtype, device, device_map, quantize, revision, adapter, trust_remote_code, **others
    ) -> Any:
        options = {
            "dtype": dtype, "device": device, "device_map": device_map, "quantize": quantize and int(quantize),
            "revision": revision, "adapter": adapter, "trust_remote_code": trust_remote_code or None,
        }  # fmt: skip
        given = {name: value for name, value in options.items() if value is not None}
        return command(model=ChosenModel(model_id, given), **others)

    for option in reversed(OPTIONS):
        with_model = option(with_model)
    return with_model  # pyright: ignore[reportReturnType]
