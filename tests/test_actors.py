"""A run made by several processes, some of which are killed: the same folder as of one process."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from command import ROOT, process, run, sentence, succeed
from conftest import picture
from test_collect import everything, examples

from eyeline.errors import DataError, ImageError
from eyeline.examples import Example, write_examples
from eyeline.training.actors import Crew
from eyeline.training.spread import Work

SETTINGS = ("--subsets", 4, "--rates", "0.5", "--max-new-tokens", 16)
# As the command does, but that the first actor to write the third example is killed in the middle of it.
KILLED = """
import os, signal, sys
from pathlib import Path
import eyeline
from eyeline.examples import read_examples
from eyeline.training.actors import actors
from eyeline.training.collect import Settings, collect
from eyeline.training.spread import Work

settings = Settings(subsets=4, rates=(0.5,), max_new_tokens=16)

def begin():
    model, real = eyeline.load("model"), os.fsync
    def fsync(file):
        if "e2." in os.readlink(f"/proc/self/fd/{file}") and not Path("killed").exists():
            Path("killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        real(file)
    os.fsync = fsync
    return Work(lambda some: collect(model, some, Path("c"), settings))

with actors(begin, 2) as work:
    print(sorted(work.each(read_examples(Path(sys.argv[1])))))
"""


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("few")
    write_examples(
        (Example(f"e{i}", picture(seed=i), f"What is {i}?", "it", "math", "x") for i in range(4)), folder
    )
    return folder


@pytest.fixture(scope="module")
def serial(folders, few, tmp_path_factory) -> dict[str, bytes]:
    """What one process with one thread leaves."""
    pytest.importorskip("ray", reason="needs pip install 'eyeline[ray]'")
    out, threads = tmp_path_factory.mktemp("serial") / "c", torch.get_num_threads()
    torch.set_num_threads(1)
    with contextlib.chdir(folders):
        succeed("collect", "--model", "model", "--data", few, "--out", out, *SETTINGS)
    torch.set_num_threads(threads)
    found = everything(out)
    assert len(found) == 5
    return found


def test_two_workers_one_of_which_is_killed_while_it_writes_leave_what_one_process_leaves(here, few, serial):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(few)]
    ended = subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("\n['e0', 'e1', 'e2', 'e3']\n")  # Ray has told of the loss before
    assert Path("killed").exists()
    assert everything(Path("c")) == serial


def descendants(pid: int) -> set[int]:
    found = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child} | descendants(child)
    return found


def command_of(pid: int) -> str:
    """Nothing of a process that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds workers as Linux names them")
def test_a_command_that_is_killed_takes_its_workers_along_and_goes_on_without_them(here, few, serial):
    words = ("collect", "--model", "model", "--data", few, "--out", "c", *SETTINGS)
    with process(*words, "--workers", 2, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
        deadline = time.monotonic() + 120
        while not list(Path("c").glob("examples/e*")):
            assert child.poll() is None, child.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        workers = [pid for pid in descendants(child.pid) if "ray::Actor" in command_of(pid)]
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert len(workers) == 2
        while any("ray::Actor" in command_of(pid) for pid in workers):
            assert time.monotonic() < deadline, "they go on"
            time.sleep(0.1)
    assert succeed(*words).stderr.endswith("4 examples in c\n")
    assert everything(Path("c")) == serial


def test_workers_without_ray_are_refused_with_what_to_install(here, few, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = run("collect", "--model", "model", "--data", few, "--out", "c", "--workers", 2)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "Error: Workers need Ray: pip install 'eyeline[ray]'."


def test_a_cluster_that_is_not_there_is_told_at_once(here, few):
    pytest.importorskip("ray", reason="needs pip install 'eyeline[ray]'")
    result = run("collect", "--model", "model", "--data", few, "--out", "c", "--ray", "127.0.0.1:1")
    assert result.exit_code == 1
    assert sentence(result.stderr.splitlines(True)[-1]).startswith(
        "Error: No Ray cluster answers at '127.0.0.1:1' ([Errno 111]"
    )


# --- without Ray: a stand-in whose actors run when they are waited for


class LostError(Exception):
    pass


def crew(begin, count=2):
    def remote():
        from eyeline.training.actors import Actor

        actor = Actor()
        calls = ("begin", "make", "finish")
        return SimpleNamespace(
            **{
                name: SimpleNamespace(remote=lambda *words, name=name: lambda: getattr(actor, name)(*words))
                for name in calls
            }
        )

    names = ("RayActorError", "OutOfMemoryError", "NodeDiedError", "WorkerCrashedError")
    ray = SimpleNamespace(
        exceptions=SimpleNamespace(**dict.fromkeys(names, LostError)), put=lambda value: value, kill=lambda actor: None,
        wait=lambda waiting, num_returns: (waiting[:1], waiting[1:]), get=lambda call: call(),
    )  # fmt: skip
    return Crew(ray, SimpleNamespace(remote=remote), begin, count)


def test_an_example_whose_worker_died_is_made_by_another_and_one_that_kills_each_is_named():
    deaths = []

    def each(some):
        for example in some:
            if example.id == "scene-1" and len(deaths) < limit:
                deaths.append(example.id)
                raise LostError("out of memory\nmore of it")
            yield example.id

    limit = 2
    found = crew(lambda: Work(each))
    assert sorted(found.each(examples(4))) == [f"scene-{place}" for place in range(4)]
    assert len(deaths) == 2
    limit = 9
    with pytest.raises(
        DataError, match=r"^3 workers died while the example 'scene-1' was made \(out of memory\): "
    ):
        list(crew(lambda: Work(each)).each(examples(4)))


def test_workers_that_die_while_they_load_end_the_run_and_a_mistake_of_the_user_stays_one():
    def die():
        raise LostError("killed")

    def refuse():
        raise ImageError("no image")

    with pytest.raises(DataError, match="3 workers died while the model was loaded"):
        crew(die)
    with pytest.raises(ImageError, match="no image"):
        crew(refuse)


def test_a_run_is_finished_once_by_a_worker_that_lives():
    finished = []

    def finish():
        finished.append(1)
        if len(finished) == 1:
            raise LostError
        return (Path("table.csv"),)

    found = crew(lambda: Work(lambda some: (each.id for each in some), finish, ("a notice",)))
    assert found.notices == ("a notice",)
    assert len(list(found.each(examples(3)))) == 3
    assert found.finish() == (Path("table.csv"),)
    assert len(finished) == 2
