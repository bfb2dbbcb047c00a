"""A thinking vision-language model: load it from anywhere, and build the inputs of one question.

The embedded model, a folder, an id on the Hugging Face Hub and a model already in memory take the same path.
"""

import json
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from eyeline import adapters
from eyeline.adapters import Adapter, ImageGrid
from eyeline.errors import ContextError, EyelineError, ImageError, PromptError, UnsupportedModelError
from eyeline.files import read_text
from eyeline.images import Picture, open_images

if TYPE_CHECKING:
    from eyeline.estimator import Estimator
    from eyeline.stream import Hidden

MODELS = Path(__file__).parent / "models"  # the embedded models, package data
ALIASES = {"mini": "qwen3-vl-mini"}
Inputs = dict[str, Tensor]
# A question, or turns {"role", "content"}: content is text or parts {"type": "text", "text"} and {"type": "image"}
Prompt = str | Sequence[Mapping[str, Any]]

# Process-wide, because a model is: how many blocks keep its `rope_deltas`, and what to put back when the last one ends
_kept: "weakref.WeakKeyDictionary[Any, tuple[int, Any]]" = weakref.WeakKeyDictionary()
_keeping = threading.Lock()  # guards `_kept`


@dataclass(frozen=True, eq=False)
class Model:
    """A transformers model with what it needs to read an image and a question."""

    name: str  # what it was loaded as: the embedded name, the folder, or the id
    hf: Any  # the transformers model with its head, in `eval`
    tokenizer: Any
    image_processor: Any
    adapter: Adapter
    chat_template: str

    def __repr__(self) -> str:
        text = self.adapter.text_config(self.hf)
        opens, closes = self.adapter.thinking_markers
        size = sum(weight.numel() for weight in self.hf.parameters())
        return (
            f"Model {self.name!r} of the family {self.adapter.family}\n"
            f"  {size / 1e6:,.1f} million parameters in {len(self.adapter.layers(self.hf))} layers of "
            f"{text.num_attention_heads} heads, {str(self.hf.dtype).removeprefix('torch.')} on {self.device}\n"
            f"  context of {self.context_length:,} tokens, thinking between {opens} and {closes}"
        )

    @property
    def device(self) -> torch.device:
        return self.hf.device

    @property
    def context_length(self) -> int:
        """Tokens that prompt and generated text may hold together."""
        return int(self.adapter.text_config(self.hf).max_position_embeddings)

    def inputs(self, images: Picture | Sequence[Picture], prompt: Prompt) -> Inputs:
        """One user turn, the images before the text: what `hf.generate` takes, on the model's device.

        A prompt of several turns says itself where its images are; it alone may have none. Raises `ImageError`
        for what is no usable image, or for none, and `PromptError` for an empty prompt, one that spells out the
        model's image token, or one that leaves no room in the context.
        """
        pictures = open_images(images)
        if not pictures and isinstance(prompt, str):
            raise ImageError(
                "No image was given; expected at least one: a path, a PIL image, an array or bytes."
            )
        if isinstance(prompt, str) and not prompt.strip():
            raise PromptError("The prompt is empty; ask a question about the image.")
        try:
            pixels = self.image_processor(images=pictures, return_tensors="pt") if pictures else {}
        except ValueError as error:  # an aspect ratio that the processor refuses
            sizes = ", ".join(f"{picture.width} x {picture.height}" for picture in pictures)
            raise ImageError(
                f"The model's image processor refuses an image ({sizes} pixels): {error}; crop it."
            ) from error
        merge = self.adapter.merge_size(self.hf)
        grids = pixels["image_grid_thw"].tolist() if pictures else []
        counts = [rows * cols // merge**2 for _, rows, cols in grids]
        input_ids = self._expand_image_tokens(self._render(prompt, len(pictures)), counts)
        if len(input_ids) >= self.context_length:
            raise ContextError(
                f"The prompt takes {len(input_ids)} tokens ({sum(counts)} of them for images), and the "
                f"model's context holds {self.context_length}, its answer included; shorten it or use "
                "smaller images."
            )
        ids = torch.tensor([input_ids])
        tensors = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": (ids == self.adapter.image_token_id(self.hf)).int(),  # 1: image
            **{name: pixels[name] for name in ("pixel_values", "image_grid_thw") if pictures},
        }
        return {name: tensor.to(self.device) for name, tensor in tensors.items()}

    def image_grids(self, inputs: Mapping[str, Tensor]) -> list[ImageGrid]:
        """Where each image lies among the prompt's tokens, in order."""
        return adapters.image_grids(self.hf, inputs)

    def prompt_opens_thinking(self, input_ids: Int[Tensor, "batch token"]) -> bool:
        """Whether the chat template already wrote the opening marker, so that generation starts inside it."""
        tail = self.tokenizer.decode(input_ids[0, -16:].tolist(), skip_special_tokens=False)
        return tail.rstrip().endswith(self.adapter.thinking_markers[0])

    def stream(
        self,
        images: Picture | Sequence[Picture],
        prompt: Prompt,
        *,
        estimator: "str | Path | Estimator | None" = None,
        regions: str | Path | Sequence[str | Path] = "native",
        max_new_tokens: int | None = None,
        temperature: float | int | None = None,
        top_p: float | int | None = None,
        top_k: int | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        pending_bytes: int = 64 * 2**20,
        hidden: "Hidden | None" = None,
        **generation: Any,
    ) -> Any:
        """Generates an answer and yields events while it is written; also a context manager (`eyeline.stream.Stream`).

        `estimator`: a folder or an `Estimator`, by default the one in the model's folder. `regions`: a source of regions
        or a file of your own, one for all images or one for each. `max_new_tokens`: by default what the context allows.
        `temperature`: 0 is greedy. `seed` makes sampling repeatable. `stop`: texts that generation ends before.
        `pending_bytes`: captured steps that may wait for attribution before decoding does. `hidden`: regions of an
        earlier stream that the model is not to see. `generation`: any other option of `hf.generate`. What is left out
        comes from the model's generation config. Raises as `eyeline.stream.stream` does.
        """
        from eyeline.stream import stream

        named = {"top_p": top_p, "top_k": top_k}
        generation |= {name: value for name, value in named.items() if value is not None}
        return stream(
            self, images, prompt, estimator=estimator, regions=regions, max_new_tokens=max_new_tokens,
            temperature=temperature, seed=seed, stop=stop, pending_bytes=pending_bytes, hidden=hidden, **generation,
        )  # fmt: skip

    def attribute(
        self,
        images: Picture | Sequence[Picture],
        prompt: str,
        text: str | Sequence[int],
        *,
        estimator: "str | Path | Estimator | None" = None,
        regions: str | Path | Sequence[str | Path] = "native",
    ) -> Any:
        """Yields the events of a text that is already written, as if the model wrote it now.

        `text`: what follows the prompt, markers included, or its token ids. `estimator` and `regions` as in `stream`.
        Raises as `eyeline.stream.attribute` does.
        """
        from eyeline.stream import attribute

        return attribute(self, images, prompt, text, estimator=estimator, regions=regions)

    def watch(
        self,
        images: Picture | Sequence[Picture],
        prompt: str,
        *,
        estimator: "str | Path | Estimator | None" = None,
        regions: str | Path | Sequence[str | Path] = "native",
        max_new_tokens: int | None = None,
        temperature: float | int | None = None,
        top_p: float | int | None = None,
        top_k: int | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        pending_bytes: int = 64 * 2**20,
        hidden: "Hidden | None" = None,
        **generation: Any,
    ) -> Any:
        """Streams an answer into a notebook and shows it while it is written; returns the run and its answer.

        Options are those of `stream`. Raises `EyelineError` in a terminal.
        """
        from eyeline.notebook import watch

        return watch(
            self, images, prompt, estimator=estimator, regions=regions, max_new_tokens=max_new_tokens,
            temperature=temperature, top_p=top_p, top_k=top_k, seed=seed, stop=stop, pending_bytes=pending_bytes,
            hidden=hidden, **generation,
        )  # fmt: skip

    def _render(self, prompt: Prompt, num_images: int) -> list[int]:
        """Token ids of the turns with one image token for each image."""
        if isinstance(prompt, str):
            content = [{"type": "image"}] * num_images + [{"type": "text", "text": prompt}]
            prompt = [{"role": "user", "content": content}]
        text = self.tokenizer.apply_chat_template(
            list(prompt),
            chat_template=self.chat_template,
            add_generation_prompt=True,
            tokenize=False,
        )
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _expand_image_tokens(self, ids: list[int], counts: list[int]) -> list[int]:
        """Each image token repeated for the visual tokens of its image."""
        image_token = self.adapter.image_token_id(self.hf)
        if ids.count(image_token) != len(counts):
            token = self.tokenizer.convert_ids_to_tokens(image_token)
            raise PromptError(
                f"The rendered prompt holds {ids.count(image_token)} image tokens for {len(counts)} images; "
                f"leave {token!r} out of the prompt (where it is not in there, the model's chat template is "
                "without images)."
            )
        remaining = iter(counts)
        return [copy for i in ids for copy in [i] * (next(remaining) if i == image_token else 1)]


def load(
    source: str | Path | tuple[Any, Any] = "mini",
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    **hf_options: Any,
) -> Model:
    """Loads a model from the package ("mini"), a folder, an id on the Hub, or one that is already in memory.

    In memory: `(hf_model, processor)` or `(hf_model, (tokenizer, image_processor))`; it stays as it is,
    except for `eval` and for a `device` or `dtype` that is given. Otherwise `device` is CUDA where there is
    one, and `dtype` that of the weights on CUDA; on CPU 16-bit weights are cast to float32, which is faster
    there and exact. `hf_options` go to `from_pretrained` (`revision`, `quantization_config`, `device_map`,
    ...). Images are always prepared by the processor's PIL code, so that pixels do not depend on what is
    installed. Raises `UnsupportedModelError` for what Eyeline cannot follow and `EyelineError` for what it
    cannot find.
    """
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


@contextmanager
def rope_deltas_kept(model: Model) -> Iterator[None]:
    """Puts back the `rope_deltas` that the model's own forward leaves behind, when the last of the blocks that overlap ends.

    They would shift another request's positions.
    """
    inner = model.hf.model
    with _keeping:
        users, before = _kept.get(inner, (0, inner.rope_deltas))
        _kept[inner] = users + 1, before
    try:
        yield
    finally:
        with _keeping:
            users, before = _kept.pop(inner)
            if users > 1:
                _kept[inner] = users - 1, before
            else:
                inner.rope_deltas = before


def check_finite(model: Model, what: str, *values: Tensor) -> None:
    """Raises `UnsupportedModelError` where numbers of the model are not finite: `what` they are."""
    if not all(bool(each.isfinite().all()) for each in values):
        precision = str(model.hf.dtype).removeprefix("torch.")
        raise UnsupportedModelError(
            f"The model's {what} are not finite numbers in {precision}, so nothing can be learned from them: load it in "
            "bfloat16 or float32, and if it is, check its weights."
        )


def _import_early() -> None:
    """Imports with the model what the first question would wait for: clustering, image formats and the stream."""
    import sklearn.cluster
    import sklearn.feature_extraction.image  # noqa: F401

    import eyeline.stream  # noqa: F401

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
