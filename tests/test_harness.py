"""Eyeline as a model of lmms-eval: the real package, in a process of its own, on a task of three questions."""

import io
import json
import os
import subprocess
import sys

import pytest
from command import ROOT
from conftest import picture

from eyeline.events import Done, Start
from eyeline.runs import read_run

HARNESS = ROOT / ".venv" / "harness"  # `make test` installs it there
TASK = """
task: three
dataset_path: parquet
dataset_kwargs:
  data_files: {{test: {folder}/test.parquet}}
test_split: test
output_type: generate_until
doc_to_visual: !function three_utils.visual
doc_to_text: !function three_utils.text
doc_to_target: answer
generation_kwargs: {{max_new_tokens: 3, do_sample: false, until: ["zzz"]}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
UTILS = """
def visual(doc):
    return [doc["image"].convert("RGB")]


def text(doc, lmms_eval_specific_kwargs=None):
    return doc["prompt"]
"""

pytestmark = pytest.mark.skipif(
    not (HARNESS / "lmms_eval").is_dir(), reason="needs make .venv/installed-harness"
)


def python(*words, **more):
    environment = os.environ | {"PYTHONPATH": str(HARNESS), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, encoding="utf-8", env=environment, **more
    )


def evaluate(folder, task, model_args):
    return python(
        "-m", "lmms_eval", "--model", "eyeline", "--model_args", model_args, "--tasks", "three", "--include_path", str(task),
        "--batch_size", "1", "--log_samples", "--output_path", str(folder / "out"), cwd=folder,
    )  # fmt: skip


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Three questions about two images."""
    from datasets import Dataset, Features, Image, Value

    folder = tmp_path_factory.mktemp("task")
    rows = []
    for number, seed in enumerate((0, 1, 1)):
        content = io.BytesIO()
        picture(seed=seed).save(content, "PNG")
        image = {"bytes": content.getvalue(), "path": None}
        rows.append({"image": image, "prompt": f"Question {number}?", "answer": "7"})
    columns = Features({"image": Image(), "prompt": Value("string"), "answer": Value("string")})
    Dataset.from_list(rows, features=columns).to_parquet(folder / "test.parquet")
    (folder / "three.yaml").write_text(TASK.format(folder=folder))
    (folder / "three_utils.py").write_text(UTILS)
    return folder


def test_a_task_gets_answers_and_keeps_what_each_rests_on_and_nothing_is_asked_twice(here, task, tmp_path):
    words = "pretrained=model,runs=kept,max_new_tokens=24"
    done = evaluate(tmp_path, task, words)
    (log,) = tmp_path.glob("out/**/*samples_three.jsonl")
    samples = {each["doc_id"]: each for each in map(json.loads, log.read_text().splitlines())}
    table = [json.loads(line) for line in (tmp_path / "kept" / "attributions.jsonl").read_text().splitlines()]
    assert [(line["task"], line["doc_id"]) for line in table] == [("three", 0), ("three", 1), ("three", 2)], (
        done
    )
    for line in table:
        run = read_run(line["run"])
        assert run.prompt == f"Question {line['doc_id']}?"
        (start, *_), last = run.events, run.events[-1]
        assert isinstance(start, Start)
        assert isinstance(last, Done)
        assert last.tokens > 3  # a task's own limit would cut the thinking
        assert samples[line["doc_id"]]["filtered_resps"] == line["answer"] == last.answer.strip()
        assert line["estimator"] == start.estimator == "general"
        assert samples[line["doc_id"]]["token_counts"][0]["output_tokens"] == last.tokens
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("events.jsonl")}
    assert len(written) == 3
    assert evaluate(tmp_path, task, words).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("events.jsonl")} == written
    assert len((tmp_path / "kept" / "attributions.jsonl").read_text().splitlines()) == 3


def test_messages_answers_and_what_cannot_be_followed(here):
    code = """
from PIL import Image
from eyeline.errors import EyelineError
from eyeline.harness import Eyeline, asked, cut_at, plain
picture = Image.new("L", (40, 30))
part, say = {"type": "image", "url": picture}, lambda text: {"type": "text", "text": text}
images, chat = asked([{"role": "system", "content": "Be brief."}, {"role": "user", "content": [say("A"), part, say("B"), part]}])
assert [image.mode for image in images] == ["RGB", "RGB"]
assert chat[0] == {"role": "system", "content": [say("Be brief.")]}
assert chat[1]["content"] == [say("A"), {"type": "image"}, say("B"), {"type": "image"}]
assert cut_at("a b zzz c", ["zzz", " b"]) == "a" and cut_at("a", None) == "a" and cut_at("a", "") == "a"
assert plain("mmmu/val 1") == "mmmu_val_1"
def refused(act):
    try:
        act()
    except EyelineError as error:
        print(error)
refused(lambda: asked([{"role": "user", "content": [{"type": "video", "url": "x.mp4"}]}]))
refused(lambda: Eyeline(batch_size=4))
refused(lambda: Eyeline.loglikelihood(None, []))
"""
    found = python("-c", code)
    assert found.returncode == 0, found.stderr
    video, batch, scoring = found.stdout.splitlines()[-3:]
    assert "shows a video" in video
    assert "leave it at 1" in batch
    assert "generate_until" in scoring
