"""The application of an engine: routes, refusals and the API document put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI

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


def create_app(settings: Settings, engine: Engine, store: Store) -> Guard:
    """The ASGI application for an engine that has started; it closes engine and store when it ends."""
    counters = Counters()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await engine.open()
        desk = app.state.desk = Desk(engine, store, Line(settings.queue), settings, counters)
        try:
            yield
        finally:
            await desk.stop()
            await engine.close()
            store.close()

    app = FastAPI(
        title="Eyeline",
        version=eyeline.__version__,
        lifespan=lifespan,
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
        responses=ERRORS,
        exception_handlers=HANDLERS,
    )
    app.state.bodies, app.state.pages = Bodies(settings), read_pages()
    for router in ROUTERS:
        app.include_router(router)
    app.openapi = partial(write_document, app)
    return Guard(app, settings, counters)
