"""The proxy put together: an application of the server with other routes for questions, and the process around it."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from eyeline.proxy.followed import FollowDesk
from eyeline.proxy.forwarding import Forward
from eyeline.proxy.proxy import Proxy
from eyeline.proxy.proxy_routes import chat_router, rest_router
from eyeline.proxy.reading_copy import CopyWorker
from eyeline.proxy.upstream import Upstream, timeout
from eyeline.server.app import create_app
from eyeline.server.asking import Desk
from eyeline.server.engine import Engine
from eyeline.server.routes import ROUTERS
from eyeline.server.safety import Guard, Settings
from eyeline.server.serving import serve
from eyeline.server.store import Store


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """How a proxy is run, beside what every server of ours is told."""

    upstream: Upstream
    forward: Forward = "fixed"
    side_channel: bool = False
    save: bool = True
    linger: float = 5.0
    at_once: int = 4  # answers that are followed at the same time; others wait, and lose nothing


def create_proxy(own: ProxySettings, settings: Settings, engine: Engine, store: Store) -> Guard:
    """The ASGI application of a proxy for an engine of `CopyWorker` that has started."""

    @asynccontextmanager
    async def opened(app: FastAPI, desk: Desk) -> AsyncIterator[None]:
        import httpx2

        assert isinstance(desk, FollowDesk)
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=settings.max_streams)
        async with httpx2.AsyncClient(timeout=timeout(), limits=limits, follow_redirects=False) as client:
            app.state.proxy = Proxy(
                own.upstream, own.forward, own.side_channel, own.save, own.linger, desk, client
            )
            yield

    routers = (chat_router, *ROUTERS, rest_router)
    return create_app(
        settings, engine, store, routers=routers, desk_of=FollowDesk, at_once=own.at_once, opened=opened
    )


def serve_proxy(
    own: ProxySettings,
    settings: Settings,
    model: str,
    estimator: str | Path | None = None,
    ready: Callable[[str], object] = lambda url: None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Loads our copy of the model and follows until SIGINT or SIGTERM. Raises `EyelineError` for what cannot work."""
    serve(settings, model, estimator, ready, options, worker=CopyWorker, app_of=partial(create_proxy, own))
