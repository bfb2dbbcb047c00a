"""The page and its files."""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, Request, Response

from eyeline.server.request_error import not_found

KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
router = APIRouter()


def read_pages() -> dict[str, tuple[bytes, str]]:
    """The page's files by name: what a request names is looked up here, not on disk."""
    folder = files("eyeline").joinpath("server", "static")
    return {
        file.name: (file.read_bytes(), kind)
        for file in folder.iterdir()
        if (kind := KINDS.get(Path(file.name).suffix)) is not None
    }


@router.get("/", include_in_schema=False)
async def page(request: Request) -> Response:
    return _file(request, "index.html")


@router.get("/static/{name}", include_in_schema=False)
async def static(request: Request, name: str) -> Response:
    return _file(request, name)


def _file(request: Request, name: str) -> Response:
    pages = request.app.state.pages
    if name not in pages:
        raise not_found("such file")
    content, kind = pages[name]
    return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})
