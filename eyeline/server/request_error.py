"""What a request is refused with: OpenAI's error object, with a sentence that helps."""

from typing import Any

KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class RequestError(Exception):
    """A request that is not served; `code` is one of those in docs/server.md."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.headers = headers or {}


def error_object(refusal: RequestError, request_id: str) -> dict[str, Any]:
    kind = KINDS.get(refusal.status, "server_error" if refusal.status >= 500 else "invalid_request_error")
    return {
        "error": {
            "message": refusal.message,
            "type": kind,
            "param": refusal.param,
            "code": refusal.code,
            "request_id": request_id,
        }
    }


def not_found(what: str) -> RequestError:
    return RequestError(
        404, "not_found", f"There is no {what} here; GET /openapi.json and /v1/runs list what is."
    )
