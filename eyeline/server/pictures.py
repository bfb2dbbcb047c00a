"""The images of a request: from data URLs, and from hosts that were allowed; nothing else is opened or fetched."""

import base64
import binascii
import contextlib
import http.client
import io
import ipaddress
import re
import socket
import ssl
import time
import warnings
from collections.abc import Sequence
from urllib.parse import urljoin, urlsplit

import PIL.Image

from eyeline.errors import ImageError
from eyeline.images import FORMATS, open_image
from eyeline.server.request_error import RequestError
from eyeline.server.safety import Settings

FETCH_SECONDS = 20  # for one image, redirects included
MOST_REDIRECTS = 3
# IPv6 ranges that carry an IPv4 address inside: 6to4, Teredo, NAT64
CARRIERS = tuple(map(ipaddress.ip_network, ("2002::/16", "2001::/32", "64:ff9b::/96", "64:ff9b:1::/48")))


def read_pictures(urls: Sequence[str], settings: Settings) -> list[PIL.Image.Image]:
    """Upright RGB images. Blocks: called in a thread. Raises a `RequestError` that names the image."""
    pictures, left = [], settings.max_pixels
    for number, url in enumerate(urls):
        try:
            content = fetch(url, settings) if url[:4].lower() == "http" else read_data_url(url)
            picture = decode(content, settings.max_pixels, left)
        except ImageError as error:
            raise RequestError(
                400, "invalid_image", f"Image {number + 1} of {len(urls)}: {error}", param="messages"
            ) from None
        left -= picture.width * picture.height
        pictures.append(picture)
    return pictures


def read_data_url(url: str) -> bytes:
    head, comma, data = url.partition(",")
    if not comma or not re.fullmatch(r"data:[\w.+-]*/?[\w.+-]*(;[\w=.+-]+)*;base64", head, re.IGNORECASE):
        raise ImageError(
            "the URL is not a data URL; expected data:image/png;base64,... (addresses of files are never opened)."
        )
    try:
        return base64.b64decode(re.sub(r"\s+", "", data), validate=True)
    except (binascii.Error, ValueError):
        raise ImageError("its data is not base64; encode the bytes of the file.") from None


def decode(content: bytes, max_pixels: int, left: int) -> PIL.Image.Image:
    """The size is read from the header before anything is decoded; `left` is what earlier images leave of `max_pixels`."""
    PIL.Image.init()
    formats = [known for known in FORMATS if known in PIL.Image.OPEN]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = PIL.Image.open(io.BytesIO(content), formats=formats)
        except PIL.Image.DecompressionBombError:
            raise ImageError("it is far too large; make it smaller.") from None
        except Exception:
            raise ImageError(f"its data is not an image; expected one of {', '.join(formats)}.") from None
        if image.width * image.height > left:
            raise ImageError(
                f"it has {image.width:,} x {image.height:,} pixels; expected {max_pixels / 1e6:.0f} "
                "megapixels at most, all images together; make it smaller."
            )
        try:
            return open_image(image)
        except ImageError as error:
            raise ImageError(str(error).replace("The given image", "it")) from None


# --- from other hosts


def fetch(url: str, settings: Settings) -> bytes:
    """An image of an allowed host; every step of it is checked, redirects as the first address."""
    deadline = time.monotonic() + FETCH_SECONDS
    for _ in range(MOST_REDIRECTS + 1):
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower(), parts.port
        except ValueError:
            raise _refused("its URL is not one") from None
        if parts.scheme not in ("http", "https") or parts.username is not None:
            raise _refused("only plain http and https URLs are fetched")
        if host not in {name.lower() for name in settings.remote_images}:
            raise _refused(
                f"images of {host[:100]!r} are not fetched here; send it as a data URL, or start the server "
                "with --allow-remote-images HOST"
            )
        default = 443 if parts.scheme == "https" else 80
        try:
            address = resolve(host, port or default)
            answer = _get(parts.scheme, host, address, port or default, url, deadline, settings.max_body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _refused(f"it could not be fetched ({type(error).__name__})") from None
        if isinstance(answer, bytes):
            return answer
        url = urljoin(url, answer)
    raise _refused(f"it was redirected more than {MOST_REDIRECTS} times")


def resolve(host: str, port: int) -> str:
    """An address of the host; refused where any of them is not public, since the next lookup might give that one."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(map(is_public, addresses)):
        raise _refused(f"{host[:100]!r} has an address that is not public")
    return addresses[0]


def is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if any(ip in carrier for carrier in CARRIERS):
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_link_local)


def _get(
    scheme: str, host: str, address: str, port: int, url: str, deadline: float, most: int
) -> bytes | str:
    """The body, or where it has moved; the connection goes to the address that was checked."""
    left = max(0.1, deadline - time.monotonic())
    connection = http.client.HTTPConnection(host, port, timeout=left)
    connection.sock = socket.create_connection((address, port), timeout=left)
    try:
        if scheme == "https":
            context = ssl.create_default_context()
            connection.sock = context.wrap_socket(connection.sock, server_hostname=host)
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", target, headers={"Accept": "image/*", "User-Agent": "eyeline"})
        with contextlib.closing(connection.getresponse()) as response:
            if response.status in (301, 302, 303, 307, 308):
                return response.getheader("Location") or "/"
            if response.status != 200:
                raise _refused(f"the host answered {response.status}")
            content = bytearray()
            while part := response.read1(2**16):
                content += part
                if len(content) > most:
                    raise _refused(f"it has more than {most // 2**20} MiB")
                if time.monotonic() > deadline:
                    raise _refused(f"it took more than {FETCH_SECONDS} seconds")
            return bytes(content)
    finally:
        connection.close()


def _refused(why: str) -> RequestError:
    return RequestError(400, "remote_image_refused", f"The image was not fetched: {why}.", param="messages")
