"""Qwen3-VL, dense: Qwen3-VL-*-Thinking and the embedded `qwen3-vl-mini`."""

from eyeline.adapters.adapter import Adapter

ADAPTER = Adapter(family="qwen3_vl", models=("Qwen3-VL-2B-Thinking", "4B", "8B", "32B"), deepstack=True)
