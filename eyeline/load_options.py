"""How a model is to be loaded: what a user leaves open is decided here, and what cannot be is refused in one sentence.

Library, command line and server hand the same `LoadOptions` on to loading.py, and `eyeline doctor` says what they come to.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from eyeline.errors import EyelineError, UnsupportedModelError
from eyeline.files import read_text

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MAPS = (
    "auto",
    "balanced",
    "balanced_low_0",
    "sequential",
)  # accelerate's ways to lay a model on several devices
BITS = {
    4: ("bitsandbytes", "torchao"),
    8: ("torchao", "bitsandbytes"),
}  # of weights: libraries, the truer first


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What may be asked of loading; None is left to Eyeline."""

    device: str | torch.device | None = None  # CUDA where there is one, else the CPU
    dtype: str | torch.dtype | None = None  # on CPU float32, else that of the weights
    device_map: str | Mapping[str, Any] | None = (
        None  # one of MAPS, a JSON file, or modules and their devices
    )
    quantize: int | None = None  # bits of a weight, 4 or 8
    revision: str | None = None  # of a model on the Hub
    adapter: str | Path | None = None  # a LoRA's folder or id
    trust_remote_code: bool = False  # whether code that comes with a model may run

    def given(self) -> list[str]:
        """The names of those that a user has set."""
        return [each.name for each in fields(self) if getattr(self, each.name) not in (None, False)]


@dataclass(frozen=True, slots=True)
class Placement:
    """What options come to for a model of some configuration."""

    device: torch.device  # where it runs; with a device map, where it is fed
    dtype: torch.dtype | None  # None: that of the weights
    device_map: str | Mapping[str, Any] | None
    quantisation: Any | None  # a configuration of transformers

    def for_transformers(self) -> dict[str, Any]:
        """As arguments of `from_pretrained`."""
        found: dict[str, Any] = {"dtype": self.dtype or "auto"}
        if self.quantisation is not None:
            found["quantization_config"] = self.quantisation
        if self.device_map is not None:
            found["device_map"] = self.device_map
        return found


def installed(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def needs(what: str, *packages: str) -> None:
    """Raises `EyelineError` with the command that installs what of some packages is missing."""
    missing = [package for package in packages if installed(package) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise EyelineError(
            f"{what} needs {' and '.join(missing)}, which {verb} not installed; run: pip install {' '.join(missing)}"
        )


def place(options: LoadOptions, config: Any = None, kept_whole: tuple[str, ...] = ()) -> Placement:
    """Decides where and in which precision a model of a transformers configuration runs.

    `kept_whole` are modules that are not to be quantised. Raises `EyelineError` for options that contradict each other
    or this machine, and for a package that they need.
    """
    if options.device is not None and options.device_map is not None:
        raise EyelineError(
            "A device and a device map were both given; expected one of them: --device for one, --device-map for several."
        )
    device, device_map = device_of(options.device), _map(options.device_map)
    packed = getattr(config, "quantization_config", None) is not None
    if options.quantize is not None and packed:
        raise UnsupportedModelError(
            f"The model's weights are quantised already, and cannot be made {options.quantize}-bit again; "
            "load it without --quantize."
        )
    if options.quantize is not None and _has_experts(config):
        raise UnsupportedModelError(
            "The model's experts share one weight, which neither bitsandbytes nor torchao makes smaller, so there is little to "
            "win; expected --quantize with a dense model: load a checkpoint that is quantised already, or use --device-map auto."
        )
    dtype = dtype_of(options.dtype)
    if dtype is None and device.type == "cpu" and device_map is None and not packed:
        dtype = torch.float32
    quantisation = None
    if options.quantize is not None:
        quantisation = _quantisation(options.quantize, dtype or torch.bfloat16, kept_whole)
        device_map = device_map or {"": str(device)}
    return Placement(device, dtype, device_map, quantisation)


def _has_experts(config: Any) -> bool:
    text = getattr(config, "text_config", None)
    return any(getattr(text, name, None) for name in ("num_local_experts", "num_experts", "n_routed_experts"))


def device_of(name: str | torch.device | None) -> torch.device:
    """A device of this machine; by default CUDA where there is one. Raises `EyelineError` for one that is not there."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise EyelineError(f"{name!r} is no device; expected cpu, cuda, cuda:1, mps or the like.") from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            has = f"sees {count} CUDA devices" if count else "sees no CUDA device"
            raise EyelineError(
                f"The device {str(device)!r} is not there: torch {torch.__version__} {has}; give --device cpu, or install "
                "the build of torch that suits the GPU's driver."
            )
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise EyelineError(f"The device {str(device)!r} is not there: torch sees none; give --device cpu.")
    return device


def dtype_of(name: str | torch.dtype | None) -> torch.dtype | None:
    """Raises `EyelineError` for what models are not run in."""
    if name is None or name in DTYPES.values():
        return name  # pyright: ignore[reportReturnType]
    if name not in DTYPES:
        raise EyelineError(f"{name!r} is no dtype to run a model in; expected one of {', '.join(DTYPES)}.")
    return DTYPES[str(name)]


def _map(given: str | Mapping[str, Any] | None) -> str | Mapping[str, Any] | None:
    """A device map as accelerate takes it. Raises `EyelineError` for what is none, and without accelerate."""
    if given is None:
        return None
    needs("A device map", "accelerate")
    if not isinstance(given, str) or given in MAPS:
        return given
    expected = f"expected {', '.join(MAPS)}, or a JSON file of modules and their devices"
    try:
        found = json.loads(read_text(Path(given)))
    except (OSError, ValueError) as error:
        raise EyelineError(f"The device map {given!r} cannot be read ({error}); {expected}.") from error
    if not isinstance(found, dict):
        raise EyelineError(f"The device map {given!r} holds no JSON object; {expected}.")
    return found


def library_for(bits: int) -> str:
    """The library that makes weights of so many bits. Raises `EyelineError` where none is installed."""
    if bits not in BITS:
        raise EyelineError(
            f"Weights of {bits!r} bits cannot be made; expected {' or '.join(map(str, BITS))}."
        )
    for library in BITS[bits]:
        if installed(library):
            break
    else:
        library = BITS[bits][0]
    needs(f"--quantize {bits}", library, "accelerate")
    return library


def _quantisation(bits: int, dtype: torch.dtype, kept_whole: tuple[str, ...]) -> Any:
    """Weights of a language model in so many bits, computing in `dtype`."""
    library, skipped = library_for(bits), list(kept_whole)
    if library == "bitsandbytes":
        from transformers import BitsAndBytesConfig

        if bits == 8:
            return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=skipped
        )  # fmt: skip
    from torchao import quantization  # pyright: ignore[reportMissingImports]
    from transformers import TorchAoConfig

    if bits == 8:
        return TorchAoConfig(
            quantization.Int8WeightOnlyConfig(set_inductor_config=False), modules_to_not_convert=skipped
        )
    four: Any = torch.int4  # pyright: ignore[reportAttributeAccessIssue]
    grouped = quantization.IntxWeightOnlyConfig(four, quantization.granularity.PerGroup(32))
    return TorchAoConfig(grouped, modules_to_not_convert=skipped)
