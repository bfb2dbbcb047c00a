"""The server that writes: what it serves, and requests to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eyeline.embedded import ALIASES
from eyeline.errors import EyelineError
from eyeline.proxy.servers import OTHER, Kind, kind_of
from eyeline.server.request_error import RequestError

# between one connection and the next, or of our own making
NOT_FORWARDED = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "trailers", "transfer-encoding",
    "upgrade", "host", "content-length", "content-encoding", "accept-encoding", "cookie", "set-cookie", "origin", "referer",
    "server", "date",
}  # fmt: skip
SECONDS_TO_CONNECT = 10.0


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where the server is, and what it is."""

    url: str  # up to /v1, without a slash at its end
    key: str | None = None  # its own
    passes_key: bool = False  # whether it gets the client's
    kind: Kind = OTHER
    model: str = ""  # what it calls the model that is followed

    def headers(self, given: Mapping[str, str]) -> dict[str, str]:
        """Of a request, those that the client gave: no encoding but the plain one, and a key only where that is meant."""
        kept = {
            name: value
            for name, value in given.items()
            if name.lower() not in NOT_FORWARDED and (name.lower() != "authorization" or self.passes_key)
        }
        if self.key is not None:
            kept["authorization"] = f"Bearer {self.key}"
        return {**kept, "accept-encoding": "identity"}


def timeout() -> Any:
    """Patience: a server that has many questions is silent for long."""
    import httpx2

    return httpx2.Timeout(None, connect=SECONDS_TO_CONNECT)


def find(
    url: str, model: str, served_as: str | None = None, key: str | None = None, *, passes_key: bool = False
) -> Upstream:
    """The server there, if it serves this model. Raises `EyelineError`."""
    import httpx2

    if not url.startswith(("http://", "https://")):
        raise EyelineError(f"{url!r} is no address; expected one such as http://host:8000/v1.")
    upstream = Upstream(url.rstrip("/"), key, passes_key)
    try:
        answer = httpx2.get(
            f"{upstream.url}/models", headers=upstream.headers({}), timeout=SECONDS_TO_CONNECT
        )
        answer.raise_for_status()
        models = {each["id"]: str(each.get("owned_by", "")) for each in answer.json()["data"]}
    except httpx2.HTTPStatusError as error:
        raise EyelineError(
            f"{upstream.url}/models answered {error.response.status_code}, so what is served there is not known; expected "
            "OpenAI's API: give the address up to /v1, and a key with --upstream-key-file if it needs one."
        ) from error
    except (httpx2.HTTPError, OSError) as error:
        raise EyelineError(
            f"No server can be reached at {upstream.url} ({type(error).__name__}); start it, or give another --base-url."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EyelineError(
            f"{upstream.url}/models does not list models as OpenAI's API does; give the address up to /v1."
        ) from error
    name = next((each for each in _names(model, served_as) if each in models), None)
    if name is None:
        there = ", ".join(map(repr, models)) or "nothing"
        wanted = served_as or model
        raise EyelineError(
            f"The server at {upstream.url} serves {there}, not {wanted!r}: give the --model whose weights it serves, and with "
            "--served-as its name there if that is another."
        )
    return Upstream(upstream.url, key, passes_key, kind_of(models[name]), name)


def _names(model: str, served_as: str | None) -> Sequence[str]:
    """What a server may call a model: its id, what our alias means, a folder's own name."""
    if served_as is not None:
        return (served_as,)
    return (model, ALIASES.get(model, model), model.rstrip("/").rpartition("/")[2])


def unreachable(upstream: Upstream, error: Exception) -> RequestError:
    return RequestError(
        502,
        "upstream_unreachable",
        f"The server at {upstream.url} cannot be reached ({type(error).__name__}); ask again when it is back.",
    )
