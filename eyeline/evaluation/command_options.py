"""Options that the commands of measurements share."""

from pathlib import Path

import click

MODEL = click.option("--model", "model_id", default="mini", show_default=True)
ESTIMATOR = click.option(
    "--estimator", default=None, help="Folder of an estimator.  [default: the model's own]"
)
DATA = click.option("--data", type=click.Path(path_type=Path), required=True, help="Data folder.")
TABLE = click.option("--out", type=click.Path(path_type=Path), required=True, help="CSV to write.")
TABLE_AND_FIGURE = click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="CSV to write; a PNG beside it."
)
