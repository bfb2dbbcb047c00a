"""What is answered where a route raises: an error object, whoever refuses."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from eyeline.errors import DataError
from eyeline.server.request_error import RequestError, error_object, not_found

OTHER_WAYS = ("/v1/responses", "/v1/completions")  # of asking, in OpenAI's API


async def refused(request: Request, error: RequestError) -> Response:
    body = error_object(error, request.state.request_id)
    return JSONResponse(body, error.status, headers=error.headers)


async def http_error(request: Request, error: HTTPException) -> Response:
    if error.status_code == 404:
        asked_otherwise = request.url.path.startswith(OTHER_WAYS)
        message = "Only chat completions are offered: send `messages` to POST /v1/chat/completions."
        missing = RequestError(404, "not_found", message) if asked_otherwise else not_found("such path")
        return await refused(request, missing)
    code = str(error.detail).lower().replace(" ", "_")
    message = f"{error.detail}: {request.method} is not what this path takes."
    refusal = RequestError(error.status_code, code, message, headers=dict(error.headers or {}))
    return await refused(request, refusal)


async def invalid(request: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    place = ".".join(str(step) for step in first["loc"][1:])
    return await refused(
        request, RequestError(400, "invalid_value", f"{place}: {first['msg']}.", param=place)
    )


async def damaged(request: Request, error: DataError) -> Response:
    message = "The run is damaged, has not begun, or cannot be shown this way."
    return await refused(request, RequestError(409, "conflict", message))


HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    RequestError: refused,
    HTTPException: http_error,
    RequestValidationError: invalid,
    DataError: damaged,
}
