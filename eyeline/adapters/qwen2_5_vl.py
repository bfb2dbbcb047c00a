"""Qwen2.5-VL as a thinking model: MiMo-VL-RL and Cosmos-Reason1."""

from eyeline.adapters.adapter import Adapter, Coordinates

ADAPTER = Adapter(
    family="qwen2_5_vl",
    models=("MiMo-VL-7B-RL", "Cosmos-Reason1-7B"),
    answer_markers=("<answer>", "</answer>"),
    coordinates=Coordinates("pixels", 28),
)
