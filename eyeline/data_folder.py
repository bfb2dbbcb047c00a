"""Where Eyeline keeps what belongs to a user: the folder that the system has for the data of programs."""

import os
from pathlib import Path

import platformdirs


def data_folder() -> Path:
    """The folder that EYELINE_HOME names, else the system's own, as ~/.local/share/eyeline on Linux."""
    own = os.environ.get("EYELINE_HOME")
    return Path(own).expanduser() if own else platformdirs.user_data_path("eyeline", appauthor=False)
