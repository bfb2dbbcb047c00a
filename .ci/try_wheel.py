"""Installs Eyeline's wheel into an empty environment and streams with it, then its miniatures' wheel and streams with each, in
a folder that holds nothing of the repository.

`python .ci/try_wheel.py dist`: the folder holds wheel and sdist of both. `TORCH` names the torch that is installed
first. Says what was checked; the first thing that is not so ends it.
"""

import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

MOST_MB = 30  # of a wheel, 10^6 bytes
BESIDE = "eyeline_minis"
ASK = """
import json, sys
from pathlib import Path
import eyeline
from eyeline import scenes
assert Path(eyeline.__file__).is_relative_to(sys.prefix), eyeline.__file__
scene = scenes.sample("document", 7_000_004)
scene.image.save("scene.png")
with eyeline.load("mini").stream(scene.image, scene.prompt, temperature=0) as stream:
    events = list(stream)
spans = [event for event in events if isinstance(event, eyeline.SpanAttribution)]
assert isinstance(events[0], eyeline.Start) and events[0].unit == "nats"
assert isinstance(events[-1], eyeline.Done) and events[-1].reason == "eos"
assert spans and all(span.contributions for span in spans)
print(json.dumps({"prompt": scene.prompt, "answer": events[-1].answer, "spans": len(spans)}))
"""
MINIS = """
import json
from eyeline.embedded import BESIDE, folder_of
assert all(folder_of(name) for name in BESIDE), BESIDE
print(json.dumps(BESIDE))
"""


def main(folder: Path) -> None:
    (wheel,), (beside,) = folder.glob("eyeline-*.whl"), folder.glob(f"{BESIDE}-*.whl")
    sizes = {path: path.stat().st_size / 1e6 for path in (wheel, beside, *sorted(folder.glob("*.tar.gz")))}
    if sizes[wheel] > MOST_MB:
        raise SystemExit(f"{wheel.name} has {sizes[wheel]:.1f} MB; at most {MOST_MB} are allowed.")
    with tempfile.TemporaryDirectory() as empty:
        work = Path(empty) / "work"
        work.mkdir()
        venv.create(Path(empty) / "venv", with_pip=True)
        python = Path(empty) / "venv" / "bin" / "python"

        def run(*command: str | Path) -> str:
            # neither the checkout nor a user's own packages, whatever the caller's environment says
            environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
            environment |= {"PYTHONNOUSERSITE": "1", "HF_HUB_OFFLINE": "1"}
            options = {"cwd": work, "env": environment, "check": True, "encoding": "utf-8"}
            return subprocess.run([str(each) for each in command], stdout=subprocess.PIPE, **options).stdout

        run(python, "-m", "pip", "install", "--quiet", os.environ.get("TORCH", "torch"))
        run(python, "-m", "pip", "install", "--quiet", f"{wheel.resolve()}[scenes]")
        run(python, "-m", "pip", "check")
        asked = json.loads(run(python, "-c", ASK))
        command = (python.with_name("eyeline"), "stream", "scene.png", asked["prompt"], "--temperature", "0")
        lines = [json.loads(line) for line in run(*command, "--json").splitlines()]
        kinds = [line["event"] for line in lines]
        if (kinds[0], kinds[-1], kinds.count("span")) != ("start", "done", asked["spans"]):
            raise SystemExit(f"`eyeline stream` gave {kinds}; the library {asked['spans']} spans.")
        run(python, "-m", "pip", "install", "--quiet", "--no-deps", beside.resolve())
        minis = json.loads(run(python, "-c", MINIS))
        for mini in minis:
            lines = [json.loads(line) for line in run(*command, "--model", mini, "--json").splitlines()]
            if not any(line["event"] == "span" for line in lines) or lines[-1]["event"] != "done":
                raise SystemExit(f"`eyeline stream --model {mini}` gave {[line['event'] for line in lines]}.")
        version = run(python, "-c", "import torch; print(torch.__version__)").strip()
    for path, size in sizes.items():
        print(f"{path.name}: {size:.1f} MB")
    print(
        f"Checked: twine's check of all; the wheel in an empty environment with torch {version}; `pip check`; from another "
        f"folder the library and `eyeline stream` answered {asked['answer']!r} to {asked['prompt']!r}, with "
        f"{asked['spans']} spans attributed in nats; with the second wheel {', '.join(minis)} streamed as well."
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
