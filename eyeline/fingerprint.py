"""Which weights a model has, in 64 digits: an estimator belongs to one model's."""

import hashlib
import json
from typing import Any

import torch

from eyeline.model import Model
from eyeline.projections import at_hand, is_packed

NOT_COMPUTING = (
    "_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures", "use_cache", "quantization_config",
)  # fmt: skip


def fingerprint(model: Model) -> str:
    """SHA-256 over the configuration that changes computation and 64 values of each of 16 tensors, rounded to bfloat16.

    The rounding makes it the same for a 16-bit checkpoint loaded in any wider type, and it does not matter where weights
    lie. All tensors of a LoRA that is not merged count too. Quantised tensors cannot be read; `is_quantised` tells when the
    check means nothing.
    """
    digest = hashlib.sha256(
        json.dumps(_computing(model.hf.config.to_diff_dict()), sort_keys=True, default=str).encode()
    )
    tied = getattr(model.hf, "all_tied_weights_keys", {})  # the same tensors again, where weights come and go
    names = sorted(
        name
        for name, each in model.hf.named_parameters()
        if each.numel() >= 64 and name not in tied and not is_packed(each)
    )
    beside = [name for name in names if ".lora_" in name]
    for name in [*(names[(len(names) - 1) * step // 15] for step in range(16)), *beside]:
        owner, _, own = name.rpartition(".")
        module = model.hf.get_submodule(owner)
        with at_hand(module):
            tensor = getattr(module, own).detach().flatten()
            at = torch.tensor([(len(tensor) - 1) * step // 63 for step in range(64)], device=tensor.device)
            values = tensor[at].to("cpu", torch.bfloat16)
        digest.update(name.encode() + values.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def is_quantised(model: Model) -> bool:
    """Whether some of the model's weights are packed, whoever has packed them."""
    return (
        getattr(model.hf, "is_quantized", False)
        or getattr(model.hf.config, "quantization_config", None) is not None
        or any(map(is_packed, model.hf.parameters()))
    )


def _computing(config: Any) -> Any:
    """A configuration's differences from its class's defaults, without the fields that change nothing in a forward pass.

    Defaults are left out, so that a later version of transformers may add some.
    """
    if isinstance(config, dict):
        return {key: _computing(value) for key, value in config.items() if key not in NOT_COMPUTING}
    return config
