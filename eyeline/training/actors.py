"""The examples of a run made by several processes at once, on this machine or a cluster: actors of Ray, with a model each.

An actor is sent an example, writes its file itself and answers with its id, so that no numbers go through Ray. What is lost with
an actor, its machine or this process is the example it was in: what is there stays, and the same command goes on from it, with
Ray or without.

Actors and not Ray Data: examples are sent as they are read, not gathered into blocks before; one that kills its actor each time
ends the run, where Ray Data would try for ever; and what is done is known by the files, not by a checkpoint beside them.
"""

import math
import os
import secrets
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from eyeline.errors import DataError, EyelineError
from eyeline.examples import Example
from eyeline.training.spread import Work

Begin = Callable[[], Work]
TRIES = 3  # actors that may die of one example, or of loading the model


@contextmanager
def actors(begin: Begin, workers: int | None = None, address: str | None = None) -> Iterator[Work]:
    """What `workers` actors can do, each of which has begun by itself: on this machine, or on the cluster at `address`.

    Without a number one for each GPU of the cluster, or for each machine where there is none. Yields when the first has begun;
    examples come in the order they are made. Raises `EyelineError` where there is no Ray or no cluster, and what `begin` raises.
    """
    ray = _library(alone=address is None)
    cpus = (
        1 if address else max(1, (os.cpu_count() or 1) // (workers or 1))
    )  # Ray gives a process as many threads
    own = {} if address else {"num_cpus": cpus * (workers or 1), "include_dashboard": False}
    try:
        _reach(address)
        ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **own)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        what = f"No Ray cluster answers at {address!r}" if address else "Ray does not start here"
        raise EyelineError(
            f"{what} ({_first_line(error)}); `ray status` on its machines says more."
        ) from error
    try:
        gpus = int(ray.cluster_resources().get("GPU", 0))
        count = workers or gpus or len(ray.nodes())
        on_one = math.ceil(count / gpus) if gpus else 0
        share = math.floor(1e4 / on_one) / 1e4 if on_one else 0
        crew = Crew(ray, ray.remote(num_cpus=cpus, num_gpus=share)(Actor), begin, count)
        yield Work(crew.each, crew.finish, crew.notices)
    finally:
        ray.shutdown()


def _library(alone: bool) -> Any:
    """Ray; `alone`: for workers of this machine, which it would let anybody in the network command otherwise."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers of every run
    if alone and "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray
    except ImportError as error:
        raise EyelineError("Workers need Ray: pip install 'eyeline[ray]'.") from error
    return ray


def _reach(address: str | None) -> None:
    """Raises `OSError` where nothing listens: Ray would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host, int(port)), 10).close()


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


class Actor:
    """A process with a model of its own; a class of Ray's once it is made one."""

    work: Work

    def begin(self, begin: Begin, folder: str) -> tuple[str, ...]:
        """Loads the model in a folder of that name, by which paths are meant, and gives its notices."""
        try:
            os.chdir(folder)
        except OSError as error:
            raise DataError(
                f"{folder} is not on the machine {os.uname().nodename} ({error.strerror}): start from a folder that all "
                "machines share."
            ) from error
        self.work = begin()
        return self.work.notices

    def make(self, example: Example) -> tuple[str, ...]:
        return tuple(self.work.each([example]))

    def finish(self) -> tuple[Path, ...]:
        return self.work.finish()


class Crew:
    """Actors, each free or busy with one thing; one that dies is replaced, and its example given to another."""

    def __init__(self, ray: Any, kind: Any, begin: Begin, count: int) -> None:
        """Waits until the first one has begun."""
        lost = ray.exceptions
        self.ray, self.kind = ray, kind
        self.lost = (lost.RayActorError, lost.OutOfMemoryError, lost.NodeDiedError, lost.WorkerCrashedError)
        self.begin = ray.put(begin)
        self.busy: dict[Any, tuple[Any, Example | None]] = {}  # by what is waited for; None: beginning
        self.free: list[Any] = []
        self.again: list[Example] = []  # whose actor died
        self.deaths: Counter[str | None] = Counter()
        self.notices: tuple[str, ...] = ()
        for _ in range(count):
            self._hire()
        self._wait_for_one()

    def each(self, examples: Iterable[Example]) -> Iterator[str]:
        """Raises what making an example raises, and `DataError` for one that no actor outlives."""
        todo = iter(examples)
        while True:
            while self.free and (example := self.again.pop() if self.again else next(todo, None)) is not None:
                actor = self.free.pop()
                self.busy[actor.make.remote(example)] = actor, example
            if self.free and not any(example is not None for _, example in self.busy.values()):
                return  # whoever still loads the model comes too late
            yield from self._next()

    def finish(self) -> tuple[Path, ...]:
        while True:
            self._wait_for_one()
            actor = self.free.pop()
            try:
                return self._get(actor.finish.remote())
            except self.lost as error:
                self._replace(actor, None, error)

    def _hire(self) -> None:
        actor = self.kind.remote()
        self.busy[actor.begin.remote(self.begin, os.getcwd())] = actor, None

    def _wait_for_one(self) -> None:
        while not self.free:
            self._next()

    def _next(self) -> tuple[str, ...]:
        """The ids that the next actor to be done has made: none of one that has begun or died."""
        (done,), _ = self.ray.wait(list(self.busy), num_returns=1)
        actor, example = self.busy.pop(done)
        try:
            found = self._get(done)
        except self.lost as error:
            self._replace(actor, example, error)
            return ()
        self.free.append(actor)
        if example is None:
            self.notices = found
            return ()
        return found

    def _get(self, done: Any) -> Any:
        try:
            return self.ray.get(done)
        except EyelineError as error:  # of a class of Ray's too, with a traceback for its text
            raise getattr(error, "cause", error) from error

    def _replace(self, actor: Any, example: Example | None, error: BaseException) -> None:
        """Raises `DataError` where that was tried often enough."""
        with suppress(*self.lost):
            self.ray.kill(actor)  # one that cannot be reached may live
        self.deaths[example and example.id] += 1
        if self.deaths[example and example.id] == TRIES:
            task = (
                f"the example {example.id!r} was made"
                if example
                else "the model was loaded or tables were written"
            )
            raise DataError(
                f"{TRIES} workers died while {task} ({_first_line(error)}): perhaps the memory is too small for so many. "
                "What is made stays; the same command goes on from it."
            ) from error
        if example is not None:
            self.again.append(example)
        self._hire()
