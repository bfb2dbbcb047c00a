"""Where a model comes from: the embedded one, a folder, an id on the Hugging Face Hub, or one already in memory.

All four take the same path, to a plain `Model`; `eyeline.load` makes one that can be asked of it.
"""

import hashlib
import json
import logging as notices
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from eyeline import adapters, embedded
from eyeline.adapters import Adapter
from eyeline.errors import EyelineError, UnsupportedModelError
from eyeline.files import read_text
from eyeline.load_options import LoadOptions, Placement, device_of, dtype_of, needs, place
from eyeline.model import Model
from eyeline.projections import check_model, one_at_a_time


def load_model(
    source: str | Path | tuple[Any, Any], options: LoadOptions, hf_options: Mapping[str, Any]
) -> Model:
    """What `eyeline.load` says, and raises. `hf_options` go to `from_pretrained`."""
    if isinstance(source, tuple):
        hf, adapter, processor = _in_memory(source, options)
        tokenizer, image_processor, template = _parts(processor)
        name = getattr(hf, "name_or_path", "") or adapter.family
    else:
        name, folder = _find(source)
        if options.revision is not None and Path(folder).is_dir():
            raise EyelineError(
                f"A revision ({options.revision!r}) is of a model on the Hub, and {name!r} is a folder; leave it out."
            )
        hf_options = {"trust_remote_code": options.trust_remote_code, **hf_options}
        if options.revision is not None:
            hf_options["revision"] = options.revision
        with plain_errors(name), quiet(folder):
            config = _config(folder, hf_options)
            adapter = adapters.adapter_of(config)
            placement = place(options, config, adapter.kept_whole)
            hf = _load_weights(folder, config, placement, hf_options)
            tokenizer, image_processor, template = _load_processors(folder, hf_options)
        if options.adapter is not None:
            hf = _with_lora(hf, str(options.adapter))
            name = f"{name} with {options.adapter}"
    if not template:
        raise UnsupportedModelError(
            f"The model {name!r} has no chat template; expected one in its tokenizer, in chat_template.jinja "
            "or in chat_template.json."
        )
    hf.eval()
    one_at_a_time(hf)
    check_model(hf, adapter)
    _import_early()
    return Model(name, hf, tokenizer, image_processor, adapter, template)


def _in_memory(source: tuple[Any, Any], options: LoadOptions) -> tuple[Any, Adapter, Any]:
    """A transformers model that is there already, moved where options say, its adapter, and its processor."""
    hf, processor = source
    if hasattr(hf, "get_base_model"):  # of peft: what is inside has the adapter's layers in it
        hf = hf.get_base_model()
    adapter = adapters.adapter_of(hf)
    if refused := [name for name in options.given() if name not in ("device", "dtype")]:
        raise EyelineError(
            f"A model in memory stays as it is, so {', '.join(refused)} cannot be chosen for it; expected device or dtype "
            "alone: give the others to from_pretrained, or load a folder or an id."
        )
    if options.given():
        device = None if options.device is None else device_of(options.device)
        with plain_errors(adapter.family):
            hf = hf.to(device=device, dtype=dtype_of(options.dtype))
    return hf, adapter, processor


def _with_lora(hf: Any, lora: str) -> Any:
    """A model with a LoRA's weights in its own; beside them where its own are packed.

    Raises `EyelineError` without peft, and for what is no LoRA of this model.
    """
    needs("An adapter", "peft")
    import peft  # pyright: ignore[reportMissingImports]

    folder = Path(lora).expanduser()
    if folder.is_dir() and not (folder / "adapter_config.json").is_file():
        raise EyelineError(
            f"{lora!r} is not an adapter's folder: it has no adapter_config.json; expected a LoRA that peft has saved."
        )
    with plain_errors(lora, "a LoRA that peft has saved for this model"), quiet(lora):
        adapted = peft.PeftModel.from_pretrained(hf, lora)
        if not isinstance(adapted.base_model, peft.tuners.lora.LoraModel):
            raise UnsupportedModelError(
                f"{lora!r} is an adapter of type {peft.PeftType(adapted.active_peft_config.peft_type).value}; expected a LoRA."
            )
        digest = hashlib.sha256()
        for name, weight in sorted(peft.get_peft_model_state_dict(adapted).items()):
            digest.update(name.encode() + weight.detach().float().cpu().numpy().tobytes())
        hf.config.with_adapter = digest.hexdigest()  # which makes it another model to an estimator
        packed = getattr(hf, "is_quantized", False)
        return adapted.get_base_model() if packed else adapted.merge_and_unload(safe_merge=True)


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
    if (folder := embedded.folder_of(str(source))) is not None:
        return folder.name, str(folder)
    path = Path(source).expanduser()
    if path.is_dir() and str(source):
        if not (path / "config.json").is_file():
            raise EyelineError(
                f"{source} is not a model folder: it has no config.json; expected a folder that "
                "save_pretrained wrote."
            )
        return str(source), str(path)
    embedded.check_installed(str(source))
    is_id = isinstance(source, str) and source.count("/") <= 1 and source[:1] not in ("/", ".", "~", "")
    if path.exists() or not is_id:
        problem = "is a file, not a model folder" if path.is_file() else "does not exist"
        expected = "expected 'mini', a folder with config.json, or an id on the Hub"
        raise EyelineError(f"{str(source)!r} {problem}; {expected}.")
    embedded.check_name(str(source))
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


def _load_weights(folder: str, config: Any, placement: Placement, hf_options: Mapping[str, Any]) -> Any:
    from transformers import AutoModelForImageTextToText

    options = {**placement.for_transformers(), **hf_options}
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        folder, config=config, output_loading_info=True, **options
    )
    hf, report = loaded
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise UnsupportedModelError(
            f"The weights in {folder} lack {len(missing)} tensors of the model (first {missing[0]}); "
            "expected a complete checkpoint."
        )
    placed = (
        "device_map" in options or "quantization_config" in options or hasattr(config, "quantization_config")
    )
    return hf if placed else hf.to(placement.device)


def _load_processors(place: str, hf_options: Mapping[str, Any]) -> tuple[Any, Any, str | None]:
    """The parts of a processor: a whole one needs torchvision, for video."""
    from transformers import AutoImageProcessor, AutoTokenizer
    from transformers.utils.hub import cached_file

    options = _hub_options(hf_options)
    tokenizer = AutoTokenizer.from_pretrained(place, **options)
    image_processor = AutoImageProcessor.from_pretrained(place, backend="pil", **options)
    template = tokenizer.chat_template
    for name in (
        "chat_template.jinja",
        "chat_template.json",
    ):  # before the tokenizer's, as transformers' processors do
        file = cached_file(place, name, _raise_exceptions_for_missing_entries=False, **options)
        if file is not None:
            text = read_text(Path(file))
            template = json.loads(text)["chat_template"] if name.endswith(".json") else text
            break
    return tokenizer, image_processor, template


def _hub_options(hf_options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that say where files come from."""
    names = (
        "trust_remote_code",
        "revision",
        "token",
        "cache_dir",
        "local_files_only",
        "subfolder",
        "force_download",
    )
    return {name: hf_options[name] for name in names if name in hf_options}


@contextmanager
def quiet(place: str) -> Iterator[None]:
    """No bars and notices for a folder, which loads in a moment; a download keeps its bar, but tells of no attempt that failed.

    torchao, where it is installed, is imported by transformers and says what of it this machine lacks: not then either.
    """
    from transformers.utils import logging

    chatty = [notices.getLogger(name) for name in ("torchao", "torch.utils._pytree", "huggingface_hub")]
    levels = [each.level for each in chatty]
    for each in chatty:
        each.setLevel(notices.ERROR)
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    if Path(place).is_dir():
        logging.disable_progress_bar()
        logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of one library to another
            yield
    finally:
        for each, before in zip(chatty, levels, strict=True):
            each.setLevel(before)
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def plain_errors(name: str, expected: str = "a complete model of transformers") -> Iterator[None]:
    """What transformers, peft and the Hub raise of what was `expected`, as one sentence."""
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
        elif any("trust_remote_code" in str(cause) for cause in causes):
            problem = (
                "brings code of its own, which is not run unless you say so: read that code, and if you trust it load with "
                "--trust-remote-code (trust_remote_code=True)"
            )
        else:
            first_line = str(error).strip().partition("\n")[0] or type(error).__name__
            problem = f"cannot be loaded ({first_line.rstrip('.')}); expected {expected}"
        raise UnsupportedModelError(f"The model {name!r} {problem}.") from error
