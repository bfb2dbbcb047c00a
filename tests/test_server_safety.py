"""Addresses, hosts and remote images, without a server."""

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from server_process import data_url

from eyeline.errors import EyelineError, ImageError
from eyeline.server import pictures
from eyeline.server.request_error import RequestError
from eyeline.server.safety import Settings, check_binding, host_name, is_our_name


def settings(**options):
    return Settings(data=Path("unused"), **options)


@pytest.mark.parametrize(
    ("host", "key", "allowed", "fine"),
    [
        ("127.0.0.1", None, False, True),
        ("127.8.8.8", None, False, True),
        ("::1", None, False, True),
        ("localhost", None, False, True),
        ("0.0.0.0", None, False, False),
        ("::", None, False, False),
        ("192.168.1.2", None, False, False),
        ("localhost.example", None, False, False),
        ("0.0.0.0", "long-enough", False, True),
        ("0.0.0.0", None, True, True),
        ("127.0.0.1", "short", False, False),
        ("127.0.0.1", "with a space", False, False),
    ],
)
def test_others_are_listened_to_only_with_a_key_or_on_purpose(host, key, allowed, fine):
    chosen = settings(host=host, api_key=key, allow_no_key=allowed)
    if fine:
        check_binding(chosen)
    else:
        with pytest.raises(EyelineError):
            check_binding(chosen)


@pytest.mark.parametrize(
    ("authority", "ours"),
    [
        ("localhost", True), ("LOCALHOST:8000", True), ("127.0.0.1:8000", True), ("[::1]:8000", True), ("10.0.0.7", True),
        ("gpu.lab", True), ("GPU.lab:80", True), ("evil.example", False), ("localhost.evil.example", False),
        ("evil@localhost", False), ("", False), ("localhost:80:80", False), ("[::1", False), ("localhost/", False),
    ],
)  # fmt: skip
def test_a_host_is_ours_where_no_name_server_could_say_so(authority, ours):
    assert is_our_name(host_name(authority), settings(allow_hosts=("gpu.lab",))) == ours


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True), ("2606:2800:220:1::1", True), ("127.0.0.1", False), ("10.1.2.3", False),
        ("172.16.0.1", False), ("192.168.0.1", False), ("169.254.169.254", False), ("100.64.0.1", False),
        ("0.0.0.0", False), ("224.0.0.1", False), ("255.255.255.255", False), ("::1", False), ("::", False),
        ("fe80::1%eth0", False), ("fc00::1", False), ("::ffff:127.0.0.1", False), ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False), ("ff02::1", False),
    ],
)  # fmt: skip
def test_only_public_addresses_are_public(address, public):
    assert pictures.is_public(address) == public


@pytest.fixture
def host(monkeypatch):
    """A host on the loopback that answers by path; it counts as public, and so does no other address."""
    png = pictures.read_data_url(data_url())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, location, body = {
                "/a.png": (200, None, png),
                "/moved": (302, "/a.png", b""),
                "/inside": (302, f"http://inside.example:{self.server.server_port}/a.png", b""),
                "/elsewhere": (302, "http://other.example/a.png", b""),
                "/file": (302, "file:///etc/passwd", b""),
                "/loop": (302, "/loop", b""),
                "/large": (200, None, bytes(3 * 2**20)),
            }.get(self.path, (404, None, b""))
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    addresses = {
        "images.example": ["127.0.0.1"],
        "inside.example": ["10.0.0.1"],
        "both.example": ["127.0.0.1", "10.0.0.1"],
    }

    def lookup(name, port, **_):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses[name]]

    monkeypatch.setattr(pictures.socket, "getaddrinfo", lookup)
    monkeypatch.setattr(pictures, "is_public", lambda address: address == "127.0.0.1")
    monkeypatch.setattr(
        pictures.socket, "create_connection", lambda address, timeout: _connect(address, timeout)
    )
    yield f"images.example:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def _connect(address, timeout):
    connection = socket.socket()
    connection.settimeout(timeout)
    connection.connect(address)
    return connection


ALLOWED = settings(remote_images=("images.example", "inside.example", "both.example"), max_body=2**20)


@pytest.mark.parametrize("path", ["/a.png", "/moved"])
def test_an_image_of_an_allowed_host_is_fetched(host, path):
    (picture,) = pictures.read_pictures([f"http://{host}{path}"], ALLOWED)
    assert picture.size == (96, 64)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://{host}/inside", "not public"),
        ("http://{both}/a.png", "not public"),
        ("http://{host}/elsewhere", "not fetched here"),
        ("http://{host}/file", "only plain http"),
        ("http://{host}/loop", "redirected more than"),
        ("http://{host}/large", "more than 1 MiB"),
        ("http://{host}/none", "answered 404"),
        ("http://user@{host}/a.png", "only plain http"),
        ("http://127.0.0.1/a.png", "not fetched here"),
        ("http://[::1/a.png", "its URL is not one"),
        ("https://{host}/a.png", "could not be fetched"),
    ],
)
def test_anything_else_is_not_fetched(host, url, why):
    both = host.replace("images", "both")
    with pytest.raises(RequestError, match=why) as caught:
        pictures.read_pictures([url.format(host=host, both=both)], ALLOWED)
    assert (caught.value.status, caught.value.code) == (400, "remote_image_refused")


@pytest.mark.parametrize(
    "url", ["", "data:", "data:image/png,abc", "data:;base64;,x", "ftp://x/a.png", "a.png"]
)
def test_what_is_no_data_url_is_refused(url):
    with pytest.raises(ImageError, match="data URL"):
        pictures.read_data_url(url)
