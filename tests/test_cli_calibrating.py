"""An estimator of a model from a few plain images, by one command."""

import json
from pathlib import Path

import pytest
from command import refuse, succeed

from eyeline.estimator_files import read_card


@pytest.fixture
def images(data):
    found = sorted(Path(data).glob("images/*.png"))[:3]
    assert len(found) == 3
    return found


def calibrate(*words):
    return succeed("calibrate", "--model", "model", *words, "--max-new-tokens", 16)


def test_three_images_make_an_estimator_that_is_used_from_then_on(here, images, tmp_path, monkeypatch):
    monkeypatch.setenv("EYELINE_HOME", str(tmp_path / "home"))
    told = calibrate(*images).stderr
    assert "Measuring 3 images" in told
    assert "Too few images for intervals" in told
    (folder,) = tmp_path.glob("home/estimators/*/calibrated")
    card = read_card(folder)
    assert (card["level"], card["images"], card["coverage"]) == ("calibrated", {"calibrate": 3}, None)
    assert set(card["lds_by_level"]) == {"general", "calibrated"}
    lines = succeed("stream", "--model", "model", images[0], "What?", "--json", "--max-new-tokens", 4).stdout
    start = json.loads(lines.splitlines()[0])
    assert (start["estimator"], start["unit"], start["level"]) == ("calibrated", "nats", "calibrated")
    assert "general" not in [each["kind"] for each in start["notices"]]


def test_what_was_measured_is_not_measured_again(here, images):
    calibrate(*images, "--collection", "c", "--out", "a")
    times = {path: path.stat().st_mtime_ns for path in Path("c/examples").iterdir()}
    assert len(times) == 3
    calibrate(*images, "--collection", "c", "--out", "b")
    assert {path: path.stat().st_mtime_ns for path in Path("c/examples").iterdir()} == times
    assert Path("a/estimator.safetensors").read_bytes() == Path("b/estimator.safetensors").read_bytes()


def test_one_of_images_data_and_an_audit_is_expected(here, data, images):
    for words in ((), (*images, "--data", data), ("--data", data, "--from-audit", ".")):
        assert "Expected images, --data or --from-audit, one of them" in refuse(
            "calibrate", "--model", "model", *words
        )
