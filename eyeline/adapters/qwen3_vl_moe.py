"""Qwen3-VL, mixture of experts: attention, vision tower and prompt are those of the dense models."""

from dataclasses import replace

from eyeline.adapters import qwen3_vl

ADAPTER = replace(
    qwen3_vl.ADAPTER,
    family="qwen3_vl_moe",
    models=("Qwen3-VL-30B-A3B-Thinking", "Qwen3-VL-235B-A22B-Thinking"),
)
