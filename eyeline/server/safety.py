"""What the server lets in: addresses, keys, hosts, sizes; and the headers that keep a browser from doing harm.

Images are let in by pictures.py.
"""

import asyncio
import hmac
import ipaddress
import json
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from eyeline.errors import EyelineError
from eyeline.images import MAX_PIXELS
from eyeline.server.counters import Counters
from eyeline.server.request_error import RequestError, error_object

log = logging.getLogger("eyeline.server")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
KEYLESS = ("/healthz", "/openapi.json", "/", "/favicon.ico")  # and the page's files
BODIES_HELD = 8  # bodies of the greatest size that may be in memory at once


@dataclass(frozen=True, slots=True)
class Settings:
    """How a server is run; sizes in bytes, times in seconds."""

    data: Path
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    allow_no_key: bool = False
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()  # whose pages may use the API
    root_path: str = ""  # below which others reach this server
    remote_images: tuple[str, ...] = ()  # hosts
    max_tokens: int = 4096
    queue: int = 64
    grace: float = 30
    max_body: int = 32 * 2**20
    max_images: int = 16
    max_pixels: int = MAX_PIXELS  # of all images of a request together
    max_messages: int = 256
    max_streams: int = 256
    body_seconds: float = 60
    heartbeat: float = 10


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_binding(settings: Settings) -> None:
    """Raises `EyelineError` for an address that others can reach, without a key, and for what is no key, origin or prefix."""
    if not (settings.api_key or settings.allow_no_key or is_loopback(settings.host)):
        raise EyelineError(
            f"Anybody who can reach {settings.host} could use the model and read every run: give --api-key-file, "
            "or say --no-key if that is meant."
        )
    if settings.api_key is not None and not re.fullmatch(r"[\x21-\x7e]{8,}", settings.api_key):
        raise EyelineError(
            "The API key is too short or holds spaces; expected 8 or more printable ASCII characters."
        )
    for origin in settings.allow_origins:
        if not re.fullmatch(r"https?://[a-z0-9.\-\[\]:]+", origin):
            raise EyelineError(
                f"{origin!r} is no origin for --allow-origin; expected one in small letters without a path, as in "
                "https://lab.example:8443."
            )
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", settings.root_path):
        raise EyelineError(
            f"{settings.root_path!r} is no prefix for --root-path; expected one that begins with a slash and does not end "
            "with one, as in /eyeline."
        )


def host_name(authority: str) -> str:
    """The name in a Host header or of an origin, without its port; empty where there is none."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:@/\s\[\]]+)(:\d{1,5})?", authority)
    return match[1].strip("[]").lower().rstrip(".") if match else ""


def is_our_name(name: str, settings: Settings) -> bool:
    """A name that rebinding cannot put in place of ours: an address, localhost, or one that was allowed."""
    try:
        ipaddress.ip_address(name)
        return True
    except ValueError:
        return name == "localhost" or name in {host.lower() for host in settings.allow_hosts}


class Guard:
    """Around the whole application: checks every request before anything of its body is read, and logs its end."""

    def __init__(self, app: FastAPI, settings: Settings, counters: Counters) -> None:
        self.app, self.settings, self.counters = app, settings, counters
        self.state = app.state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        request_id = f"req-{secrets.token_hex(8)}"
        scope.setdefault("state", {})["request_id"] = request_id
        # HEAD is answered as GET is, and the HTTP server leaves the body out
        asked = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        asked = {**asked, "path": self.below(scope["path"])}
        shared = self.shared_with(Request(asked))
        began, status = time.perf_counter(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"] = list(message.get("headers", ()))
                there = {name.lower() for name, _ in headers}
                ours = {**HEADERS, "X-Request-Id": request_id, **shared}
                headers += [
                    (name.lower().encode(), value.encode())
                    for name, value in ours.items()
                    if name.lower().encode() not in there
                ]
            await send(message)

        try:
            self.check(Request(asked))
            if "Access-Control-Allow-Methods" in shared:  # a browser asks before another site's page does
                await answer({"type": "http.response.start", "status": 204})
                await answer({"type": "http.response.body"})
            else:
                await self.app(asked, receive, answer)
        except RequestError as refusal:
            await refuse(refusal, request_id, answer)
        except ClientDisconnect:
            status = status or 499
        except Exception:
            log.exception("%s failed", request_id)
            if status:
                raise
            message = f"Something is wrong with the server; its log says more under {request_id}."
            await refuse(RequestError(500, "internal", message), request_id, answer)
        finally:
            route = getattr(asked.get("route"), "path", "other")
            self.counters.requests.labels(route, str(status)).inc()
            log.info(
                "%s %s %s %d %.3f s",
                request_id, scope["method"], route, status, time.perf_counter() - began,
            )  # fmt: skip

    def below(self, path: str) -> str:
        """A path below the prefix, which a proxy before us may have taken off already."""
        root = self.settings.root_path
        return path.removeprefix(root) if path.startswith(f"{root}/") else path

    def shared_with(self, request: Request) -> dict[str, str]:
        """Headers by which a browser lets an allowed site's page use the answer; none for others."""
        origin = request.headers.get("origin", "")
        if origin.lower() not in self.settings.allow_origins:
            return {"Vary": "Origin"} if self.settings.allow_origins else {}
        found = {
            "Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": "X-Request-Id, X-Eyeline-Run, Retry-After",
            "Vary": "Origin",
        }  # fmt: skip
        if request.method == "OPTIONS":
            asked = request.headers.get("access-control-request-headers", "")
            found |= {"Access-Control-Allow-Methods": "GET, POST, DELETE", "Access-Control-Max-Age": "600"}
            found |= {"Access-Control-Allow-Headers": asked} if asked else {}
        return found

    def check(self, request: Request) -> None:
        settings, headers = self.settings, request.headers
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not is_our_name(host_name(hosts[0]), settings):
            raise RequestError(
                403,
                "host_refused",
                "This host name is not known here; use the address, or start the server with --allow-host NAME.",
            )
        origin = headers.get("origin")
        allowed = origin is not None and origin.lower() in settings.allow_origins
        if origin is not None and not allowed and urlsplit(origin).netloc.lower() != hosts[0].lower():
            raise RequestError(403, "origin_refused", "Pages of other sites may not use this server.")
        path = request.url.path
        if allowed and request.method == "OPTIONS":  # comes without the key
            return
        if settings.api_key is not None and path not in KEYLESS and not path.startswith("/static/"):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(given.strip().encode(), settings.api_key.encode())
            if scheme.lower() != "bearer" or not right:
                raise RequestError(
                    401,
                    "invalid_api_key",
                    "The API key is missing or wrong; send the header `Authorization: Bearer KEY`.",
                    headers={"WWW-Authenticate": "Bearer"},
                )


async def refuse(refusal: RequestError, request_id: str, send: Send) -> None:
    body = json.dumps(error_object(refusal, request_id)).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **refusal.headers}
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


class Bodies:
    """Reads request bodies, of bounded size each, all together and in time."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.held = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The body, which counts as held until the block is left: keep nothing of its size after that."""
        settings = self.settings
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RequestError(
                415, "unsupported_media_type", "Send JSON, with Content-Type: application/json."
            )
        announced = request.headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > settings.max_body:
            raise self._too_large()
        before, parts, size = self.held, [], 0
        try:
            try:
                async with asyncio.timeout(settings.body_seconds):
                    async for part in request.stream():
                        size += len(part)
                        self.held += len(part)
                        if size > settings.max_body:
                            raise self._too_large()
                        if before and self.held > BODIES_HELD * settings.max_body:
                            raise RequestError(
                                429,
                                "queue_full",
                                "Too many large requests at once; come back in a few seconds.",
                                headers={"Retry-After": "5"},
                            )
                        parts.append(part)
            except TimeoutError:
                raise RequestError(
                    408, "timeout", f"The body was not there within {settings.body_seconds:.0f} seconds."
                ) from None
            body = b"".join(parts)
            parts.clear()
            yield body
        finally:
            self.held -= size

    def _too_large(self) -> RequestError:
        return RequestError(
            413,
            "too_large",
            f"The body has more than {self.settings.max_body // 2**20} MiB; send smaller images.",
        )
