"""What a user can put right: each error says what was wrong, what was expected and what to do."""


class EyelineError(Exception):
    """Base of every error that Eyeline raises for its user; the command line prints it and exits 1."""


class ImageError(EyelineError):
    """A file that cannot be used as an image."""


class UnsupportedModelError(EyelineError):
    """A model of a family without an adapter, without vision, or in a state Eyeline cannot follow."""


class PromptError(EyelineError):
    """A prompt that is empty, or that the model cannot take."""


class ContextError(PromptError):
    """A prompt that does not fit into the model's context."""


class RegionError(EyelineError):
    """A label map, box list or region source that does not fit its image."""


class EstimatorError(EyelineError):
    """An estimator that is missing, broken, or fitted for another model."""


class DataError(EyelineError):
    """A data folder, collection or saved run that cannot be read or does not match."""
