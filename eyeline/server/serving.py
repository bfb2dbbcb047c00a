"""The server's process: its sockets, and the application on them until it is told to stop."""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from eyeline.errors import EyelineError
from eyeline.server.app import create_app
from eyeline.server.asking import Desk
from eyeline.server.auditing import auditing
from eyeline.server.engine import Engine, Worker
from eyeline.server.safety import Guard, Settings, check_binding
from eyeline.server.store import Store


def serve(
    settings: Settings,
    model: str,
    estimator: str | Path | None = None,
    ready: Callable[[str], object] = lambda url: None,
    options: Mapping[str, Any] | None = None,
    *,
    worker: type[Worker] = Worker,
    app_of: Callable[..., Guard] = create_app,
    audit: float | None = None,
) -> None:
    """Loads the model, with options of `eyeline.load`, and serves until SIGINT or SIGTERM.

    `audit`: the share of the time in which spans are measured while nobody waits.
    Raises `EyelineError` for what cannot work, before the model is loaded where that can be known.
    """
    check_binding(settings)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("eyeline.server").setLevel(logging.INFO)
    with ExitStack() as stack:
        sockets = [stack.enter_context(each) for each in bind(settings.host, settings.port)]
        store = Store(settings.data)
        stack.callback(store.close)
        engine = Engine(model, estimator, options, worker)
        engine.start()
        if audit is not None:
            if engine.about.estimator is None:
                raise EyelineError(
                    "There is nothing to audit where attention is shown: name an estimator, or leave --estimator or --audit out."
                )
            app_of = partial(app_of, opened=auditing(audit))
        app = app_of(settings, engine, store)
        config = uvicorn.Config(
            app,
            settings.host,
            settings.port,
            access_log=False,  # ours has request ids, and no query strings
            server_header=False,
            log_level="warning",
            timeout_graceful_shutdown=int(settings.grace) + 10,
            h11_max_incomplete_event_size=64 * 1024,
        )
        _Server(config, app.state, settings.grace, ready).run(sockets)


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets on every address of a host, which do not listen yet. Raises `EyelineError` where they cannot be had."""
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for number, (family, kind, protocol, _, address) in enumerate(found, start=1):
            try:
                sockets.append(_bind_one(socket.socket(family, kind, protocol), address))
            except OSError as error:
                absent = error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
                # a host's ::1 may be absent, not all it has
                if not absent or (number == len(found) and not sockets):
                    raise
    except OSError as error:
        for each in sockets:
            each.close()
        raise _cannot_listen(host, port, error) from error
    return sockets


def _bind_one(one: socket.socket, address: Any) -> socket.socket:
    try:
        if os.name == "posix":  # elsewhere it would share the port with whoever has it
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if one.family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
    except OSError:
        one.close()
        raise
    return one


def _cannot_listen(host: str, port: int, error: OSError) -> EyelineError:
    if error.errno == errno.EADDRINUSE:
        why = f"Port {port} of {host} is taken, perhaps by another server; end that one, or give another --port."
    elif error.errno == errno.EACCES:
        why = f"Port {port} may not be used by this user; give a --port from 1024 on."
    else:
        why = f"{host!r} is no address of this machine ({error.strerror}); give another --host."
    return EyelineError(why)


class _Server(uvicorn.Server):
    """Gives those who wait and those who are served some time when it is told to stop."""

    def __init__(
        self, config: uvicorn.Config, state: Any, grace: float, ready: Callable[[str], object]
    ) -> None:
        super().__init__(config)
        self.state, self.grace, self.ready = state, grace, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        try:
            await super().startup(sockets)
        except OSError as error:  # another server began to listen while the model was loaded
            await self.lifespan.shutdown()
            raise _cannot_listen(self.config.host, self.config.port, error) from error
        if self.started:
            host = self.config.host
            self.ready(f"http://{f'[{host}]' if ':' in host else host}:{self.config.port}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            self.loop.call_soon_threadsafe(self._begin_to_stop)
        super().handle_exit(sig, frame)

    def _begin_to_stop(self) -> None:
        desk: Desk = self.state.desk
        desk.stopping = True
        self._ending = asyncio.create_task(self._end_later(desk))

    async def _end_later(self, desk: Desk) -> None:
        await asyncio.sleep(self.grace)
        await desk.stop()
