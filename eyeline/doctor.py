"""What this machine has to run models with, what would be used of it, and which models are at hand.

Plain values; how they are shown is the command line's.
"""

import json
import platform
import shutil
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from eyeline.adapters import ADAPTERS
from eyeline.embedded import ALIASES, folders
from eyeline.kernels import KERNELS, any_kernel
from eyeline.load_options import BITS, LoadOptions, installed, place
from eyeline.version import __version__

EXTRAS = {
    "accelerate": "for --device-map and --quantize",
    "bitsandbytes": "for --quantize",
    "torchao": "for --quantize",
    "peft": "for --adapter",
    "scikit-image": "for --regions slic",
    "matplotlib": "for figures of `eyeline evaluate`",
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
GB = 1e9


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    found: str
    works: bool = True
    advice: str = ""  # what to do where something is missing


def examine() -> Iterator[Finding]:
    """Everything that decides how a model runs here, one thing after the other."""
    yield Finding("Python", platform.python_version())
    yield Finding("eyeline", __version__)
    yield Finding("torch", torch.__version__)
    yield Finding("transformers", installed("transformers") or "not installed")
    chosen = place(LoadOptions())
    yield Finding("device", _device(chosen.device))
    yield Finding(
        "dtype", "that of the weights" if chosen.dtype is None else "float32, 16-bit weights are cast"
    )
    yield _attention(chosen.device)
    yield Finding("free memory", _memory(chosen.device))
    for package, purpose in EXTRAS.items():
        version = installed(package)
        advice = "" if version else f"{purpose}: pip install {package}"
        yield Finding(package, version or "not installed", version is not None, advice)
    for bits, libraries in BITS.items():
        use = next((name for name in libraries if installed(name)), None)
        ready = use is not None and installed("accelerate") is not None
        yield Finding(f"--quantize {bits}", f"by {use}" if ready else "not possible yet", ready)
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    advice = "" if browser else "only tests of the page need it; the page opens in any browser"
    yield Finding("Chromium", browser or "not found", browser is not None, advice)


def _device(device: torch.device) -> str:
    if device.type != "cuda":
        return f"{device.type}, {torch.get_num_threads()} threads"
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return f"{device}, one of {', '.join(names)}" if len(names) > 1 else f"{device}, {names[0]}"


def _attention(device: torch.device) -> Finding:
    """Runs the kernel of a device on a little attention: whether its log-sum-exp comes with it, and is right."""
    query, key = torch.randn(1, 4, 3, 16, device=device), torch.randn(1, 2, 5, 16, device=device)
    kernel = KERNELS.get(device.type, any_kernel)
    name = f"sdpa of {device.type}"
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            _, found = kernel(query, key, key, None, False, 0.25)
        scores = query @ key.repeat_interleave(2, 1).transpose(2, 3) * 0.25
        if not torch.allclose(found, scores.logsumexp(-1), rtol=1e-2, atol=1e-2):
            return Finding(
                "attention", f"{name}: its log-sum-exp is wrong", False, "install another version of torch"
            )
    except RuntimeError as error:
        return Finding(
            "attention",
            f"{name} fails: {str(error).splitlines()[0]}",
            False,
            "install another version of torch",
        )
    if told:
        return Finding(
            "attention", f"{name}, log-sum-exp worked out again", False, "decoding slows down as text grows"
        )
    return Finding("attention", f"{name}, log-sum-exp from the kernel")


def _memory(device: torch.device) -> str:
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(line for line in lines if line.startswith("MemAvailable"))
        found.append(f"{int(available.split()[1]) * 1024 / GB:.1f} GB")
    if device.type == "cuda":
        for number in range(torch.cuda.device_count()):
            free, whole = torch.cuda.mem_get_info(number)
            found.append(f"{free / GB:.1f} of {whole / GB:.1f} GB on cuda:{number}")
    return ", ".join(found) or "not known here"


@dataclass(frozen=True, slots=True)
class AtHand:
    """A model that is on this computer."""

    name: str  # as `--model` takes it
    family: str
    size: int  # bytes
    place: str  # `shipped`, or the Hub's cache
    estimator: bool  # whether its folder has one


def at_hand() -> Iterator[AtHand]:
    """Models of supported families that ship with Eyeline or lie in the Hub's cache, weights included."""
    names = {folder: alias for alias, folder in ALIASES.items()}
    for folder in folders():
        if (family := _family(folder)) is not None:
            yield AtHand(
                names.get(folder.name, folder.name), family, _size(folder), "shipped", _has_estimator(folder)
            )
    yield from _in_cache()


def _in_cache() -> Iterator[AtHand]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return
    for repository in sorted(repositories, key=lambda each: each.repo_id):
        for revision in repository.revisions:
            folder = revision.snapshot_path
            if repository.repo_type == "model" and (family := _family(folder)) is not None:
                place = f"Hub cache, {revision.commit_hash[:8]}"
                yield AtHand(repository.repo_id, family, revision.size_on_disk, place, _has_estimator(folder))


def _family(folder: Path) -> str | None:
    """Of a folder with weights, where an adapter knows it."""
    with suppress(OSError, ValueError):
        family = json.loads((folder / "config.json").read_bytes()).get("model_type")
        if family in ADAPTERS and any(folder.glob("*.safetensors")):
            return family
    return None


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _has_estimator(folder: Path) -> bool:
    return (folder / "estimator" / "card.json").is_file()
