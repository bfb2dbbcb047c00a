"""A client's request -> what is sent on, and what our copy is to follow; or why it cannot be followed."""

import asyncio
import base64
import copy
import io
import math
import secrets
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image
from pydantic import Field, ValidationError

from eyeline.errors import ImageError
from eyeline.proxy.fixed_size import Size
from eyeline.proxy.followed import FollowDesk
from eyeline.proxy.upstream import Upstream
from eyeline.server.engine import EngineDiedError, EngineRefusedError
from eyeline.server.pictures import read_data_url, read_pictures
from eyeline.server.request import LARGEST_SEED, Body, Turn, conversation, image_urls, text_of
from eyeline.server.request_error import RequestError
from eyeline.server.safety import Settings

Forward = Literal["fixed", "as-is"]
REGIONS = ("native", "grid", "random")
# In the header of a PNG: width and height; bits and kind of colour
PNG_SIZE, PNG_KIND = slice(16, 24), slice(24, 26)
TRUE_COLOUR = b"\x08\x02"  # 8 bits of red, green and blue
CHANGING = (b"tRNS", b"eXIf", b"acTL")  # transparency, turning, animation: readers differ in what they show
PATIENCE_S = 5.0  # with our copy's process, before the server is asked


class UnfollowedError(Exception):
    """Why a request goes on as it is and is not followed: one sentence."""


class Conversation(Body):
    messages: list[Turn] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Own:
    """What the client says to us alone, in the request's field `eyeline`: false, or an object."""

    events: bool = True  # whether they are in what it gets
    save: bool = True
    regions: str = "native"


@dataclass(frozen=True, eq=False)
class Followable:
    """A request that can be followed."""

    urls: list[str]  # of its images
    messages: list[dict[str, Any]]
    prompt: str  # the last question
    options: dict[str, Any]  # as those of a question to our own server


def take_own(body: dict[str, Any], *, events: bool, save: bool) -> Own:
    """Takes `eyeline` out of a request; what is left out is as the server's operator has it."""
    said = body.pop("eyeline", None)
    if said is False:
        return Own(events=False, save=save)
    if not isinstance(said, dict):
        return Own(events=events, save=save)
    regions = said.get("regions", "native")
    if (
        regions not in REGIONS
        or not isinstance(said.get("save", save), bool)
        or set(said) - {"regions", "save"}
    ):
        raise RequestError(
            400,
            "invalid_value",
            f"eyeline: expected false, or an object with `save` (true or false) and `regions` ({', '.join(REGIONS)}).",
            param="eyeline",
        )
    return Own(events=events, save=said.get("save", save), regions=regions)


def check(body: Mapping[str, Any], upstream: Upstream) -> Conversation:
    """Raises `UnfollowedError` for a request that our copy cannot follow."""
    if body.get("n") not in (None, 1):
        raise _unfollowed(f"n is {body['n']}, and one answer is followed at a time", "ask with n=1")
    if body.get("tools") or body.get("functions"):
        raise _unfollowed("it offers tools, whose calls are not followed", "leave `tools` out")
    if body.get("model") not in (None, "", upstream.model):
        raise _unfollowed(
            f"it asks for the model {str(body['model'])[:100]!r}, and our copy is of {upstream.model!r}",
            "ask for that one",
        )
    try:
        found = Conversation.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(step for step in map(str, first["loc"]) if not step.startswith("<"))
        raise _unfollowed(
            f"our copy cannot read {place[:100]} ({first['msg']})", "send text and image_url parts alone"
        ) from None
    if not image_urls(found.messages):
        raise _unfollowed("it has no image, so there is nothing to attribute to", "send at least one")
    return found


def _unfollowed(why: str, instead: str) -> UnfollowedError:
    return UnfollowedError(f"This answer is not attributed: {why}; {instead}.")


def followable(body: Mapping[str, Any], upstream: Upstream, settings: Settings, own: Own) -> Followable:
    """What of a request is followed; its images are not looked at yet. Raises `UnfollowedError`."""
    turns = check(body, upstream).messages
    urls = image_urls(turns)
    if len(urls) > settings.max_images:
        raise _unfollowed(
            f"it has {len(urls)} images, and {settings.max_images} are read at most", "send fewer"
        )
    return Followable(urls, conversation(turns), text_of(turns[-1]) or "...", _options(body, own))


class Pictures:
    """A request's images, decoded once, when they are first wanted: beside that nothing else goes fast."""

    def __init__(self, urls: Sequence[str], desk: FollowDesk) -> None:
        self.urls, self.desk = urls, desk
        self._reading: asyncio.Task[list[Image.Image]] | None = None

    async def read(self) -> list[Image.Image]:
        """Upright RGB images. Raises `UnfollowedError`."""
        self._reading = self._reading or asyncio.create_task(self._read())
        return await self._reading

    async def _read(self) -> list[Image.Image]:
        try:
            async with self.desk.preparing:
                return await asyncio.to_thread(read_pictures, self.urls, self.desk.settings)
        except RequestError as error:
            raise _unfollowed(
                error.message.rstrip("."), "send an image that can be read, as a data URL"
            ) from None


def _options(body: Mapping[str, Any], own: Own) -> dict[str, Any]:
    """With which our own copy would be asked the same."""
    options: dict[str, Any] = {
        "max_new_tokens": body.get("max_completion_tokens") or body.get("max_tokens"),
        "stop": [each for each in _as_list(body.get("stop")) if isinstance(each, str) and each],
        "seed": body["seed"] if isinstance(body.get("seed"), int) else secrets.randbelow(LARGEST_SEED),
        "regions": own.regions,
    }
    for name in ("temperature", "top_p"):
        if isinstance(body.get(name), int | float):
            options[name] = body[name]
    return options


def _as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


async def with_fixed_images(body: dict[str, Any], pictures: Pictures) -> dict[str, Any]:
    """The request with its images at sizes that the model's image processor leaves as they are. Raises `UnfollowedError`.

    Images that are so already go on as they came, before they are decoded.
    """
    urls, desk = pictures.urls, pictures.desk
    known = await asyncio.to_thread(lambda: [plain_size(url) for url in urls])
    sizes = [size for size in known if size is not None]
    small = len(sizes) == len(urls) and sum(map(math.prod, sizes)) <= desk.settings.max_pixels
    try:
        if small and await _fixed_sizes(sizes, desk) == sizes:
            return body
    except UnfollowedError:
        await pictures.read()  # what is wrong with an image itself says more
        raise
    decoded = await pictures.read()
    sizes = await _fixed_sizes([picture.size for picture in decoded], desk)
    images = list(zip(urls, known, decoded, sizes, strict=True))
    fixed = await asyncio.to_thread(
        lambda: [url if was == size else resized(picture, size) for url, was, picture, size in images]
    )
    return {**body, "messages": with_images(body["messages"], fixed)}


async def _fixed_sizes(sizes: Sequence[Size], desk: FollowDesk) -> list[Size]:
    try:
        async with asyncio.timeout(PATIENCE_S):
            return [await desk.fixed_size(size) for size in sizes]
    except EngineRefusedError as error:
        raise _unfollowed(str(error).rstrip("."), "send another image") from None
    except (EngineDiedError, TimeoutError):
        raise _unfollowed("our copy's process does not answer", "ask again later") from None


def plain_size(url: str) -> Size | None:
    """Width and height of a PNG of which every reader sees the same pixels: opaque colours, not turned. None for all else."""
    if not url.startswith("data:image/png;"):
        return None
    try:
        content = read_data_url(url)
    except ImageError:
        return None
    if content[PNG_KIND] != TRUE_COLOUR or any(chunk in content for chunk in CHANGING):
        return None
    width, height = struct.unpack(">II", content[PNG_SIZE])
    return width, height


def resized(picture: Image.Image, size: Sequence[int]) -> str:
    """A data URL of the picture at a size, as the image processors resize."""
    width, height = size
    encoded = io.BytesIO()
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    picture.save(encoded, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def with_images(messages: Sequence[Any], urls: Sequence[str]) -> list[Any]:
    """The same turns with other images in place of theirs, in order."""
    messages, left = copy.deepcopy(list(messages)), iter(urls)
    for turn in messages:
        for part in turn["content"] if isinstance(turn.get("content"), list) else ():
            if part.get("type") == "image_url":
                part["image_url"]["url"] = next(left)
    return messages
