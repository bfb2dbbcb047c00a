"""As much of the Hugging Face Hub's API as its own client needs to make, fill and read repositories of models; a plugin.

Repositories lie in memory. What is private is there for TOKEN alone, and to all others as if it were not.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest

TOKEN = "hf_of_the_owner"


@dataclass
class Repository:
    private: bool
    branches: dict[str, list[str]] = field(default_factory=lambda: {"main": []})  # commits, oldest first
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # files of each

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        sha = hashlib.sha1(f"{branch} {len(self.commits)}".encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch].append(sha)
        return sha

    def sha(self, revision: str) -> str | None:
        return (
            self.branches[revision][-1]
            if self.branches.get(revision)
            else revision
            if revision in self.commits
            else None
        )


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?/?", path):
            repo, what, revision = found.groups()
            if (one := self.repository(repo)) and (sha := self.revision(one, revision or "main")) is not None:
                files = one.commits.get(sha, {})
                if what == "tree":
                    return self.tell([
                        {"type": "file", "path": name, "size": len(content), "oid": oid(content)}
                        for name, content in files.items()
                    ])  # fmt: skip
                self.tell({"id": repo, "modelId": repo, "sha": sha, "private": one.private,
                           "siblings": [{"rfilename": name} for name in files]})  # fmt: skip
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repo, revision, name = found.groups()
            if (one := self.repository(repo)) and (sha := self.revision(one, revision)):
                content = one.commits[sha].get(name)
                if content is None:
                    return self.refuse(404, "EntryNotFound")
                self.send(content, {"X-Repo-Commit": sha, "ETag": f'"{oid(content)}"'})
        else:
            self.refuse(404, "NotFound")

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if path == "/api/validate-yaml":
            return self.tell({"errors": [], "warnings": []})
        if not self.owner:
            return self.refuse(401, "")
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            there = repo in self.server.repositories
            private = asked.get("visibility") == "private" or asked.get("private") is True
            self.server.repositories.setdefault(repo, Repository(private))
            return self.tell({"url": f"{self.server.url}/{repo}"}, 409 if there else 200)
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit|branch)/([^/]+)", path)
        assert found is not None, path
        repo, what, revision = found.groups()
        if (one := self.repository(repo)) is None:
            return None
        if what == "branch":
            there = revision in one.branches
            one.branches.setdefault(revision, list(one.branches["main"]))
            return self.tell({}, 409 if there else 200)
        if what == "preupload":
            files = json.loads(body)["files"]
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            return self.tell({"files": [{"path": each["path"], **modes} for each in files]})
        lines = [json.loads(line) for line in body.splitlines()]
        files = dict(one.commits.get(one.sha(revision) or "", {}))
        for each in lines:
            if each["key"] == "file":
                files[each["value"]["path"]] = base64.b64decode(each["value"]["content"])
        sha = one.commit(revision, files)
        return self.tell({"commitUrl": f"{self.server.url}/{repo}/commit/{sha}", "commitOid": sha})

    @property
    def owner(self) -> bool:
        return self.headers["Authorization"] == f"Bearer {TOKEN}"

    def repository(self, name: str) -> Repository | None:
        one = self.server.repositories.get(name)
        if one is None or (one.private and not self.owner):
            self.refuse(401 if not self.owner else 404, "RepoNotFound")
            return None
        return one

    def revision(self, one: Repository, name: str) -> str | None:
        if name in one.branches and not one.branches[name]:
            return ""  # nothing yet
        if (sha := one.sha(name)) is None:
            self.refuse(404, "RevisionNotFound")
        return sha

    def tell(self, value: object, status: int = 200) -> None:
        self.send(json.dumps(value).encode(), {"Content-Type": "application/json"}, status)

    def refuse(self, status: int, code: str) -> None:
        self.send(b"{}", {"X-Error-Code": code, "Content-Type": "application/json"}, status)

    def send(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The Hub's client in this process speaks to a server here, with an empty cache and no token of the user's."""
    constants = huggingface_hub.constants
    with Hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants._HF_DEFAULT_ENDPOINT)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "no-tokens"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server
