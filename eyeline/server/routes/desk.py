"""What the application keeps in its state, as routes take it."""

from typing import Annotated

from fastapi import Depends, Request

from eyeline.server.asking import Desk
from eyeline.server.safety import Bodies


async def _desk(request: Request) -> Desk:
    return request.app.state.desk


async def _bodies(request: Request) -> Bodies:
    return request.app.state.bodies


AtDesk = Annotated[Desk, Depends(_desk)]
WithBodies = Annotated[Bodies, Depends(_bodies)]
