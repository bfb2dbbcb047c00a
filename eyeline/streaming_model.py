"""The model that a user holds: a plain `Model`, and beside it what it can be asked, each a function of a module below.

All else in the package takes plain models; only `eyeline.load` makes one of these.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from eyeline import contrast, elsewhere, notebook, stream
from eyeline.ablation import Method
from eyeline.asked import Hidden
from eyeline.contrast import Contrast
from eyeline.estimator import Estimator
from eyeline.events import Notice
from eyeline.images import Picture
from eyeline.load_options import LoadOptions
from eyeline.loading import load_model
from eyeline.model import Model, Prompt
from eyeline.runs import Run
from eyeline.stream import PENDING_BYTES, Stream


class StreamingModel(Model):
    """A model that streams its answers, attributes texts, and shows itself in a notebook while it answers."""

    def stream(
        self,
        images: Picture | Sequence[Picture],
        prompt: Prompt,
        *,
        estimator: str | Path | Estimator | None = None,
        regions: str | Path | Sequence[str | Path] = "native",
        max_new_tokens: int | None = None,
        temperature: float | int | None = None,
        top_p: float | int | None = None,
        top_k: int | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        pending_bytes: int = PENDING_BYTES,
        hidden: Hidden | None = None,
        sources: bool = True,
        top_logprobs: int | None = None,
        **generation: Any,
    ) -> Stream:
        """Generates an answer and yields events while it is written; also a context manager (`eyeline.stream.Stream`).

        `estimator`: a folder, an id on the Hub or an `Estimator`, by default your own for the model, else the one in its folder.
        `regions`: a source of regions
        or a file of your own, one for all images or one for each. `max_new_tokens`: by default what the context allows.
        `temperature`: 0 is greedy. `seed` makes sampling repeatable. `stop`: texts that generation ends before.
        `pending_bytes`: captured steps that may wait for attribution before decoding does. `hidden`: regions of an
        earlier stream that the model is not to see. `sources`: read earlier text too, for what each span takes from it and what
        the answer rests on through it. `top_logprobs`: keep how likely each token was, and so many of the
        likeliest in its place (`Stream.likely`). `generation`: any other option of `hf.generate`. What is left out
        comes from the model's generation config. Raises as `eyeline.stream.stream` does.
        """
        return stream.stream(
            self, images, prompt, estimator=estimator, regions=regions, max_new_tokens=max_new_tokens,
            temperature=temperature, top_p=top_p, top_k=top_k, seed=seed, stop=stop, pending_bytes=pending_bytes,
            hidden=hidden, sources=sources, top_logprobs=top_logprobs, **generation,
        )  # fmt: skip

    def attribute(
        self,
        images: Picture | Sequence[Picture],
        prompt: str,
        text: str | Sequence[int],
        *,
        estimator: str | Path | Estimator | None = None,
        regions: str | Path | Sequence[str | Path] = "native",
        sources: bool = True,
    ) -> Stream:
        """Yields the events of a text that is already written, as if the model wrote it now.

        `text`: what follows the prompt, markers included, or its token ids. `estimator`, `regions` and `sources` as in `stream`.
        Raises as `eyeline.stream.attribute` does.
        """
        return stream.attribute(
            self, images, prompt, text, estimator=estimator, regions=regions, sources=sources
        )

    def follow(
        self,
        images: Picture | Sequence[Picture],
        prompt: Prompt,
        *,
        prompt_ids: Sequence[int] | None = None,
        notices: Sequence[Notice] = (),
        estimator: str | Path | Estimator | None = None,
        regions: str | Path | Sequence[str | Path] = "native",
        pending_bytes: int = PENDING_BYTES,
    ) -> elsewhere.Following:
        """Yields the events of a trace that another server writes, as its ids are pushed (`eyeline.elsewhere.Following`).

        `prompt_ids`: the prompt as that server read it, by default as our own. `notices`: go into `Start`. `estimator`,
        `regions` and `pending_bytes` as in `stream`. Raises as `eyeline.elsewhere.follow` does.
        """
        return elsewhere.follow(
            self, images, prompt, prompt_ids=prompt_ids, notices=notices, estimator=estimator, regions=regions,
            pending_bytes=pending_bytes,
        )  # fmt: skip

    def contrast(
        self,
        of: Run | Stream,
        span: int,
        instead: str,
        *,
        words: str | None = None,
        method: Method | None = None,
    ) -> Contrast:
        """Measures what each region does to whether a span says `words`, or `instead` in their place (`eyeline.contrast`).

        `of`: a saved run, or a stream that has come to that span. Without `words` all of the span's text is replaced. Raises as
        `eyeline.contrast.contrast` does.
        """
        return contrast.contrast(self, of, span, instead, words=words, method=method)

    def watch(
        self,
        images: Picture | Sequence[Picture],
        prompt: str,
        *,
        estimator: str | Path | Estimator | None = None,
        regions: str | Path | Sequence[str | Path] = "native",
        max_new_tokens: int | None = None,
        temperature: float | int | None = None,
        top_p: float | int | None = None,
        top_k: int | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        pending_bytes: int = PENDING_BYTES,
        hidden: Hidden | None = None,
        sources: bool = True,
        top_logprobs: int | None = None,
        **generation: Any,
    ) -> notebook.Watched:
        """Streams an answer into a notebook and shows it while it is written; returns the run and its answer.

        Options are those of `stream`. Raises `EyelineError` in a terminal.
        """
        return notebook.watch(
            self, images, prompt, estimator=estimator, regions=regions, max_new_tokens=max_new_tokens,
            temperature=temperature, top_p=top_p, top_k=top_k, seed=seed, stop=stop, pending_bytes=pending_bytes,
            hidden=hidden, sources=sources, top_logprobs=top_logprobs, **generation,
        )  # fmt: skip


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
