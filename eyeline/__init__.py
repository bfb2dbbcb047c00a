"""Eyeline: which parts of an image a thinking vision-language model relies on, live, while it thinks."""

from eyeline.errors import EyelineError
from eyeline.events import Done, Error, ImageInfo, SpanAttribution, Start, Text
from eyeline.model import Model, load

__version__ = "0.1.0"
__all__ = ["Done", "Error", "EyelineError", "ImageInfo", "Model", "SpanAttribution", "Start", "Text", "load"]
