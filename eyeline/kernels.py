"""Attention kernels that give the log-sum-exp of each row away, one for each type of device."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

# query (1, head, row, dim), key and value (1, kv_head, column, dim), mask, causal, scaling -> output, log-sum-exp (1, head, row)
Kernel = Callable[[Tensor, Tensor, Tensor, Tensor | None, bool, float], tuple[Tensor, Tensor]]


def _cpu_kernel(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scaling: float
) -> tuple[Tensor, Tensor]:
    """The kernel that sdpa runs on CPU, called as transformers calls it: outputs are the same to the bit."""
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    if mask is None:
        return flash(query, key, value, 0.0, causal, scale=scaling)
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, float("-inf"))
    batch, heads, rows, dim = query.shape
    if rows == 1:  # transformers lays the heads of a group out as rows; other layouts round differently
        query = query.reshape(batch, key.shape[1], heads // key.shape[1], dim)
    output, log_sum_exp = flash(query, key, value, 0.0, False, attn_mask=mask, scale=scaling)
    return output.reshape(batch, heads, rows, dim), log_sum_exp.reshape(batch, heads, rows)


def _cuda_kernel(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scaling: float
) -> tuple[Tensor, Tensor]:
    """The kernels of sdpa on CUDA that return the log-sum-exp. Not run by us: there was no GPU."""
    if mask is not None or query.shape[-1] > 256:
        return any_kernel(query, key, value, mask, causal, scaling)
    if query.dtype != torch.float32:
        output, log_sum_exp, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, 0.0, causal, False, scale=scaling
        )
    else:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        output, log_sum_exp, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
            query, key, value, None, True, 0.0, causal, scale=scaling
        )
    return output, log_sum_exp[..., : query.shape[2]]  # its rows are padded to a multiple of 32


def any_kernel(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scaling: float
) -> tuple[Tensor, Tensor]:
    """sdpa, and the log-sum-exp beside it in float32: a second pass over the keys."""
    warnings.warn(
        f"The attention kernel on {query.device.type} returns no log-sum-exp here; Eyeline computes it "
        "again, which slows decoding down as the text grows.",
        stacklevel=2,
    )
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    output = nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=causal, scale=scaling
    )
    scores = query.float() @ key.float().transpose(-1, -2) * scaling
    if causal:
        rows, columns = scores.shape[-2:]
        mask = torch.ones(rows, columns, dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return output, scores.logsumexp(-1)


KERNELS: dict[str, Kernel] = {"cpu": _cpu_kernel, "cuda": _cuda_kernel}  # by device type; others: any_kernel
