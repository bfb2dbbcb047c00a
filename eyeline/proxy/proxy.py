"""What the proxy's routes hold."""

from dataclasses import dataclass
from typing import Any

from fastapi import Request

from eyeline.proxy.followed import FollowDesk
from eyeline.proxy.forwarding import Forward
from eyeline.proxy.upstream import Upstream, unreachable
from eyeline.server.request_error import not_found


@dataclass(frozen=True, eq=False)
class Proxy:
    """What a proxy is told when it is started, and what it then holds."""

    upstream: Upstream
    forward: Forward  # images: at a fixed size, or as the client sends them
    side_channel: bool  # whether events are kept out of what the client gets
    save: bool  # whether runs are kept unless a request says otherwise
    linger: float  # seconds that the end of an answer waits for its last events
    desk: FollowDesk
    client: Any  # httpx2.AsyncClient

    async def send(self, request: Request, content: Any) -> Any:
        """The server's answer to a request with this body, not read yet. Raises `RequestError`."""
        import httpx2

        path = request.url.path.removeprefix("/v1")
        if any(set(part) == {"."} for part in request.scope["path"].split("/")):
            raise not_found("such path")
        url = f"{self.upstream.url}{path}" + (f"?{request.url.query}" if request.url.query else "")
        headers = self.upstream.headers(request.headers)
        if not isinstance(content, bytes) and (length := request.headers.get("content-length")) is not None:
            headers["content-length"] = length
        try:
            asked = self.client.build_request(request.method, url, headers=headers, content=content)
            return await self.client.send(asked, stream=True)
        except httpx2.HTTPError as error:
            raise unreachable(self.upstream, error) from None

    async def read(self, answer: Any) -> bytes:
        """All of the server's answer. Raises `RequestError` where it breaks off."""
        import httpx2

        try:
            return await answer.aread()
        except httpx2.HTTPError as error:
            raise unreachable(self.upstream, error) from None
