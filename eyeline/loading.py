"""Where a model comes from: the embedded one, a folder, an id on the Hugging Face Hub, or one already in memory.

All four take the same path, to a plain `Model`; `eyeline.load` makes one that can be asked of it.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from eyeline import adapters
from eyeline.errors import EyelineError, UnsupportedModelError
from eyeline.files import read_text
from eyeline.model import Model

MODELS = Path(__file__).parent / "models"  # the embedded models, package data
ALIASES = {"mini": "qwen3-vl-mini"}


def load_model(
    source: str | Path | tuple[Any, Any],
    device: str | torch.device | None,
    dtype: torch.dtype | None,
    hf_options: Mapping[str, Any],
) -> Model:
    """What `eyeline.load` says, and raises."""
    if isinstance(source, tuple):
        hf, processor = source
        adapter = adapters.adapter_of(hf)
        tokenizer, image_processor, template = _parts(processor)
        hf = hf if device is None and dtype is None else hf.to(device=device, dtype=dtype)
        name = getattr(hf, "name_or_path", "") or adapter.family
    else:
        name, place = _find(source)
        with plain_errors(name), quiet(place):
            config = _config(place, hf_options)
            adapter = adapters.adapter_of(config)
            hf = _load_weights(place, config, device, dtype, hf_options)
            tokenizer, image_processor, template = _load_processors(place, hf_options)
    if not template:
        raise UnsupportedModelError(
            f"The model {name!r} has no chat template; expected one in its tokenizer, in chat_template.jinja "
            "or in chat_template.json."
        )
    _import_early()
    return Model(name, hf.eval(), tokenizer, image_processor, adapter, template)


def _import_early() -> None:
    """Imports with the model what the first question would wait for: clustering and image formats."""
    import sklearn.cluster
    import sklearn.feature_extraction.image  # noqa: F401

    Image.init()


def _parts(processor: Any) -> tuple[Any, Any, str | None]:
    """Tokenizer, image processor and chat template of a processor, or of a pair of the first two."""
    if isinstance(processor, tuple):
        tokenizer, image_processor = processor
        return tokenizer, image_processor, tokenizer.chat_template
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise UnsupportedModelError(
            f"{type(processor).__name__} is no processor with a tokenizer and an image processor; "
            "pass (model, processor) or (model, (tokenizer, image_processor))."
        )
    template = processor.chat_template or processor.tokenizer.chat_template
    return processor.tokenizer, processor.image_processor, template


def _find(source: str | Path) -> tuple[str, str]:
    """The name of a model, and what `from_pretrained` takes for it: a folder with a config, or an id."""
    embedded = MODELS / ALIASES.get(str(source), str(source))
    if str(source) in ALIASES or (embedded.parent == MODELS and embedded.is_dir()):
        if not (embedded / "config.json").is_file():
            raise EyelineError(
                f"The weights of the embedded model {embedded.name!r} are missing from this installation "
                f"(expected in {embedded}); install eyeline again."
            )
        return embedded.name, str(embedded)
    path = Path(source).expanduser()
    if path.is_dir() and str(source):
        if not (path / "config.json").is_file():
            raise EyelineError(
                f"{source} is not a model folder: it has no config.json; expected a folder that "
                "save_pretrained wrote."
            )
        return str(source), str(path)
    is_id = isinstance(source, str) and source.count("/") <= 1 and source[:1] not in ("/", ".", "~", "")
    if path.exists() or not is_id:
        problem = "is a file, not a model folder" if path.is_file() else "does not exist"
        expected = "expected 'mini', a folder with config.json, or an id on the Hub"
        raise EyelineError(f"{str(source)!r} {problem}; {expected}.")
    return str(source), str(source)


def _config(place: str, hf_options: Mapping[str, Any]) -> Any:
    from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

    options = _hub_options(hf_options)
    family = PreTrainedConfig.get_config_dict(place, **options)[0].get("model_type")
    if family not in CONFIG_MAPPING:
        raise UnsupportedModelError(
            f"No adapter for the model family {family!r}, which transformers does not know either "
            f"(supported: {', '.join(sorted(adapters.ADAPTERS))})."
        )
    return AutoConfig.from_pretrained(place, **options)


def _load_weights(
    place: str,
    config: Any,
    device: str | torch.device | None,
    dtype: torch.dtype | None,
    hf_options: Mapping[str, Any],
) -> Any:
    from transformers import AutoModelForImageTextToText

    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    quantised = "quantization_config" in hf_options or hasattr(config, "quantization_config")
    if dtype is None and target.type == "cpu" and not quantised:
        dtype = torch.float32
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        place, config=config, dtype=dtype or "auto", output_loading_info=True, **hf_options
    )
    hf, report = loaded
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise UnsupportedModelError(
            f"The weights in {place} lack {len(missing)} tensors of the model (first {missing[0]}); "
            "expected a complete checkpoint."
        )
    return hf if quantised or "device_map" in hf_options else hf.to(target)


def _load_processors(place: str, hf_options: Mapping[str, Any]) -> tuple[Any, Any, str | None]:
    """The parts of a processor: a whole one needs torchvision, for video."""
    from transformers import AutoImageProcessor, AutoTokenizer
    from transformers.utils.hub import cached_file

    options = _hub_options(hf_options)
    tokenizer = AutoTokenizer.from_pretrained(place, **options)
    image_processor = AutoImageProcessor.from_pretrained(place, backend="pil", **options)
    template = tokenizer.chat_template
    for name in ("chat_template.jinja", "chat_template.json"):
        if template:
            break
        file = cached_file(place, name, _raise_exceptions_for_missing_entries=False, **options)
        if file is not None:
            text = read_text(Path(file))
            template = json.loads(text)["chat_template"] if name.endswith(".json") else text
    return tokenizer, image_processor, template


def _hub_options(hf_options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that say where files come from."""
    names = ("revision", "token", "cache_dir", "local_files_only", "subfolder", "force_download")
    return {name: hf_options[name] for name in names if name in hf_options}


@contextmanager
def quiet(place: str) -> Iterator[None]:
    """No bars and notices for a folder, which loads in a moment; a download keeps its bar."""
    from transformers.utils import logging

    if not Path(place).is_dir():
        yield
        return
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def plain_errors(name: str) -> Iterator[None]:
    """What transformers and the Hub raise, as one sentence."""
    from huggingface_hub import errors as hub

    try:
        yield
    except EyelineError:
        raise
    except Exception as error:  # the loaders raise nearly every kind
        causes: list[BaseException] = [error]
        while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
            causes.append(cause)
        if any(isinstance(cause, hub.GatedRepoError) for cause in causes):
            problem = "is gated: accept its terms on the Hub and log in with `hf auth login`"
        elif any(isinstance(cause, hub.RepositoryNotFoundError | hub.HFValidationError) for cause in causes):
            problem = "is neither a folder here nor a model on the Hugging Face Hub; check its spelling"
        elif any(
            isinstance(cause, hub.LocalEntryNotFoundError | hub.OfflineModeIsEnabled)
            or type(cause).__module__.startswith("httpx")
            for cause in causes
        ):
            problem = (
                "is not on this computer and the Hugging Face Hub cannot be reached; "
                "check the network, or give the folder of a downloaded model"
            )
        else:
            first_line = str(error).strip().partition("\n")[0] or type(error).__name__
            problem = f"cannot be loaded ({first_line}); expected a complete model of transformers"
        raise UnsupportedModelError(f"The model {name!r} {problem}.") from error
