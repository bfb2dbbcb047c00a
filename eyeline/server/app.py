"""The application of an engine: routes, refusals and the API document put together."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from fastapi import APIRouter, FastAPI

import eyeline
from eyeline.server.api_document import ERRORS, write_document
from eyeline.server.asking import Desk
from eyeline.server.counters import Counters
from eyeline.server.engine import Engine
from eyeline.server.line import Line
from eyeline.server.refusals import HANDLERS
from eyeline.server.routes import ROUTERS
from eyeline.server.routes.page_files import read_pages
from eyeline.server.safety import Bodies, Guard, Settings
from eyeline.server.store import Store


@asynccontextmanager
async def nothing_more(app: FastAPI, desk: Desk) -> AsyncIterator[None]:
    yield


def create_app(
    settings: Settings,
    engine: Engine,
    store: Store,
    *,
    routers: Sequence[APIRouter] = ROUTERS,
    desk_of: type[Desk] = Desk,
    at_once: int = 1,
    opened: Callable[[FastAPI, Desk], AbstractAsyncContextManager[None]] = nothing_more,
) -> Guard:
    """The ASGI application for an engine that has started; it closes engine and store when it ends.

    `at_once`: questions that are seen through at the same time. `opened`: what else is open while the application is.
    """
    counters = Counters()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await engine.open()
        line = Line(settings.queue, at_once)
        desk = app.state.desk = desk_of(engine, store, line, settings, counters)
        try:
            async with opened(app, desk):
                yield
        finally:
            await desk.stop()
            await engine.close()
            store.close()

    app = FastAPI(
        title="Eyeline",
        version=eyeline.__version__,
        lifespan=lifespan,
        servers=[{"url": settings.root_path}] if settings.root_path else None,
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
        responses=ERRORS,
        exception_handlers=HANDLERS,
    )
    app.state.bodies, app.state.pages = Bodies(settings), read_pages()
    for router in routers:
        app.include_router(router)
    app.openapi = partial(write_document, app)
    return Guard(app, settings, counters)
