"""Eyeline: which parts of an image a thinking vision-language model relies on, live, while it thinks."""

from eyeline.errors import EyelineError
from eyeline.events import Done, Error, ImageInfo, SpanAttribution, Start, Text
from eyeline.shared_estimator import SharedEstimator as Estimator
from eyeline.streaming_model import StreamingModel as Model
from eyeline.streaming_model import load
from eyeline.version import __version__ as __version__

__all__ = [
    "Done",
    "Error",
    "Estimator",
    "EyelineError",
    "ImageInfo",
    "Model",
    "SpanAttribution",
    "Start",
    "Text",
    "load",
]
