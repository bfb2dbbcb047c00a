"""The model that a user holds: a plain `Model`, and as its methods what it can be asked, each a function of a module below.

These take the model first, so that they are methods as they stand. All else in the package takes plain models; only
`eyeline.load` makes one of these.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from eyeline import contrast as contrasts
from eyeline import elsewhere, notebook
from eyeline import stream as streams
from eyeline.load_options import LoadOptions
from eyeline.loading import load_model
from eyeline.model import Model


class StreamingModel(Model):
    """A model that streams its answers, attributes texts, and shows itself in a notebook while it answers."""

    stream = streams.stream
    attribute = streams.attribute
    follow = elsewhere.follow
    watch = notebook.watch
    contrast = contrasts.contrast


def load(
    source: str | Path | tuple[Any, Any] = "mini",
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    quantize: int | None = None,
    revision: str | None = None,
    adapter: str | Path | None = None,
    trust_remote_code: bool = False,
    **hf_options: Any,
) -> StreamingModel:
    """Loads a model from the package ("mini"), a folder, an id on the Hub, or one that is already in memory.

    In memory: `(hf_model, processor)` or `(hf_model, (tokenizer, image_processor))`; it stays as it is,
    except for `eval` and for a `device` or `dtype` that is given. Otherwise `device` is CUDA where there is
    one, and `dtype` ("bfloat16", "float16", "float32" or torch's) that of the weights on CUDA; on CPU 16-bit weights
    are cast to float32, which is faster there and exact.

    `device_map` lays a model on several devices, and what does not fit on the CPU or the disk: "auto" or another of
    accelerate's, a JSON file, or modules and their devices. `quantize`: 4 or 8 bits for each weight of the language
    model, by bitsandbytes or torchao. `revision`: of an id on the Hub. `adapter`: a LoRA's folder or id, by peft; it
    is merged into the weights, unless they are quantised. `trust_remote_code` runs code that comes with a model.
    `hf_options` go to `from_pretrained` (`quantization_config`, `cache_dir`, `token`, ...).

    Images are always prepared by the processor's PIL code, so that pixels do not depend on what is
    installed. Raises `UnsupportedModelError` for what Eyeline cannot follow and `EyelineError` for what it
    cannot find, and for options that need what is not there.
    """
    options = LoadOptions(device, dtype, device_map, quantize, revision, adapter, trust_remote_code)
    return StreamingModel(**vars(load_model(source, options, hf_options)))
