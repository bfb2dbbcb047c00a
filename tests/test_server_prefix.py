"""A server that others reach below a prefix of a proxy, and from pages of other sites."""

import contextlib
import http.client
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from browsing import ask, expect
from server_process import Server, question, running

from eyeline.errors import EyelineError
from eyeline.server.safety import Settings, check_binding

SITE = "https://lab.example:8443"


@pytest.fixture(scope="module")
def behind(model_folder, tmp_path_factory):
    options = ("--root-path", "/eyeline", "--allow-origin", SITE)
    with running(model_folder, tmp_path_factory.mktemp("data"), *options, key="long-enough") as server:
        yield server


@pytest.fixture(scope="module")
def proxy(behind):
    """The same server as somebody sees it who has a proxy before them that takes the prefix off, as nginx does."""

    class Handler(BaseHTTPRequestHandler):
        def pass_on(self):
            if not self.path.startswith("/eyeline/"):
                return self.send_error(404)
            with contextlib.closing(
                http.client.HTTPConnection("127.0.0.1", behind.port, timeout=60)
            ) as there:
                length = self.headers.get("Content-Length")
                body = None if length is None else self.rfile.read(int(length))
                there.request(self.command, self.path.removeprefix("/eyeline"), body, dict(self.headers))
                answer = there.getresponse()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.end_headers()
                while part := answer.read1(65536):
                    self.wfile.write(part)

        do_GET = do_POST = do_DELETE = do_OPTIONS = pass_on  # noqa: N815

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield Server(listening.server_port, behind.process, behind.data, behind.log, behind.key)
        listening.shutdown()


def test_the_page_names_its_files_from_where_it_is(proxy):
    page = proxy.call("GET", "/eyeline/")
    assert page.status == 200
    links = re.findall(r'(?:src|href)="([^"#]*)"', page.body.decode())
    assert len(links) > 4
    for link in links:
        assert not link.startswith("/")
        assert proxy.call("GET", f"/eyeline/{link.removeprefix('./')}").status == 200


def test_everything_is_there_with_the_prefix_and_without_it(behind, proxy):
    asked = {"messages": question(), "max_tokens": 4}
    for found, root in ((proxy, "/eyeline"), (behind, "/eyeline"), (behind, "")):
        assert found.call("POST", f"{root}/v1/chat/completions", asked).status == 200
        assert found.call("GET", f"{root}/healthz").status == 200
    assert behind.call("GET", "/other/v1/models").status == 404
    assert proxy.call("GET", "/eyeline/openapi.json").json["servers"] == [{"url": "/eyeline"}]
    assert behind.call("GET", "/eyeline/v1/models", Authorization="Bearer wrong-key").status == 401


@pytest.mark.browser
def test_the_page_is_used_below_a_prefix(proxy, visit, tmp_path):
    page = visit(proxy, "/eyeline/", expected="401")
    page.get_by_role("textbox", name="API key").fill(proxy.key)
    page.get_by_role("button", name="Continue").click()
    expect(page.locator(".gallery img").first).to_have_js_property("complete", True)
    ask(page, tmp_path)
    expect(page).to_have_url(re.compile("/eyeline/.run=run-"), timeout=60_000)
    expect(page.locator(".span").first).to_be_visible()
    page.reload()
    expect(page.locator(".span").first).to_be_visible()
    page.locator(".wordmark").click()
    expect(page).to_have_url(re.compile("/eyeline/$"), timeout=60_000)


def test_pages_of_an_allowed_site_may_ask_and_those_of_others_not(behind):
    allowed = behind.call("GET", "/v1/models", Origin=SITE)
    assert (allowed.status, allowed.headers["access-control-allow-origin"]) == (200, SITE)
    assert allowed.headers["vary"] == "Origin"
    asks = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    before = behind.call("OPTIONS", "/v1/chat/completions", Origin=SITE, Authorization="", **asks)
    assert (before.status, before.body) == (204, b"")
    assert before.headers["access-control-allow-headers"] == "authorization,content-type"
    assert "POST" in before.headers["access-control-allow-methods"]
    refused = behind.call("GET", "/v1/models", Origin=SITE, Authorization="Bearer wrong-key")
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, SITE)
    for origin in ("https://lab.example", "http://lab.example:8443", "null", f"{SITE}.evil.example"):
        other = behind.call("OPTIONS", "/v1/chat/completions", Origin=origin, **asks)
        assert other.status == 403
        assert not any(name.startswith("access-control") for name in other.headers)
    plain = behind.call("GET", "/v1/models")
    assert (plain.status, plain.headers["vary"]) == (200, "Origin"), "no cache gives it to another site"
    assert "access-control-allow-origin" not in plain.headers


def test_without_an_allowed_site_nobody_elses_pages_are_answered(server):
    other = server.call("GET", "/v1/models", Origin=SITE)
    assert other.status == 403
    assert json.loads(other.body)["error"]["code"] == "origin_refused"
    assert "vary" not in other.headers


@pytest.mark.parametrize(
    "options",
    [
        {"root_path": "eyeline"}, {"root_path": "/eyeline/"}, {"root_path": "/a b"}, {"allow_origins": ("*",)},
        {"allow_origins": ("https://lab.example/",)}, {"allow_origins": ("lab.example",)}, {"allow_origins": ("null",)},
    ],
)  # fmt: skip
def test_what_is_no_prefix_or_no_origin_is_refused(tmp_path, options):
    with pytest.raises(EyelineError, match="expected one"):
        check_binding(Settings(tmp_path, **options))
