"""How commands write: a sentence for what a user can put right, and figures that leave out what is not known."""

import click
import pytest

from eyeline.evaluation.results import error_bars, writing


def test_a_lost_connection_is_no_matter_of_files(tmp_path):
    with pytest.raises(ConnectionRefusedError), writing(tmp_path / "t.csv", figure=False):
        raise ConnectionRefusedError
    with (
        pytest.raises(click.ClickException, match="cannot be read or written"),
        writing(tmp_path / "t.csv", figure=False),
    ):
        raise PermissionError(13, "Permission denied", "weights")


def test_error_bars_reach_to_the_ends_of_an_interval_and_nowhere_without_one():
    below, above = error_bars([(1.0, 0.5, 3.0), (2.0, None, None)])
    assert (below[0], above[0]) == (0.5, 2.0)
    assert below[1] != below[1]
    assert above[1] != above[1]
