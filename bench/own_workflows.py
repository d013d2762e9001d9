#!/usr/bin/env python3
"""How far each example workflow gets with random weights, in the real ComfyUI, on the CPU.

    bench/own_workflows.py --comfyui DIR --python FILE [--nodes DIR] [--work DIR] [MODEL ...]

Run by hand. --comfyui is a checkout of ComfyUI, --python a Python that has its packages and those of the
nodes (an image's /opt/venv has them, or a virtual environment with torch for the CPU), --nodes a folder with
the trees of the models' nodes, each called as its file in variants/nodes/ is, and those of their `paths`.

For each model it makes files of random weights under the names that the workflow wants
(bench/workflow_kit/small.py says which, and what is smaller in them), starts ComfyUI with that model's node
alone, posts variants/workflows/MODEL.api.json with few steps and a small size, and says whether the sampler
was reached and what ComfyUI says of the end. Nothing is downloaded. It takes up to 8 GB of disk and 16 GB of
RAM at a time. --work keeps the files, the logs and what came out; files that are there are not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from workflow_kit.comfyui import Outcome, run
from workflow_kit.small import FOLDERS, MODELS, Small

HERE = Path(__file__).resolve().parent
VARIANTS = HERE.parent / "variants"


def main() -> int:
    """Run what is asked for; returns 1 where one does not reach its sampler."""
    asked = _parse()
    with tempfile.TemporaryDirectory(prefix="own-workflows-") as temporary:
        work = (asked.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        outcomes = {}
        for name in asked.models or MODELS:
            outcomes[name] = _one(name, asked, work)
            print(f"{name}: {outcomes[name].sentence}", flush=True)
    print(_table(outcomes))
    return 0 if all(outcome.sampled for outcome in outcomes.values()) else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--comfyui", type=Path, required=True, help="a checkout of ComfyUI")
    parser.add_argument("--python", type=Path, required=True, help="a Python with ComfyUI's packages")
    parser.add_argument("--nodes", type=Path, help="a folder with the trees of the nodes")
    parser.add_argument("--work", type=Path, help="where to keep files and logs")
    parser.add_argument("--limit", type=float, default=900, help="seconds for one workflow")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}; all")
    asked = parser.parse_args()
    if unknown := [name for name in asked.models if name not in MODELS]:
        parser.error(f"{', '.join(unknown)}: not of {', '.join(MODELS)}")
    for folder, witness in ((asked.comfyui, "main.py"), (asked.python.parent, asked.python.name)):
        if not (folder / witness).is_file():
            parser.error(f"{folder} has no {witness}: name one that has")
    return asked


def _one(name: str, asked: argparse.Namespace, work: Path) -> Outcome:
    """Make a model's files and run its workflow."""
    small = MODELS[name]
    node = _node(name)
    extra: list[Path] = []
    if node:
        if not asked.nodes or not (asked.nodes / node).is_dir():
            return Outcome(stopped=f"its node {node} is not there: name a folder that has it with --nodes")
        extra = _linked(node, asked.nodes.resolve(), work)
    made = _make(small, asked, work)
    if made:
        return Outcome(stopped=made)
    workflow = json.loads((VARIANTS / f"workflows/{name}.api.json").read_text(encoding="utf-8"))
    for place, value in small.settings.items():
        number, _, key = place.partition(".")
        if key not in workflow[number]["inputs"]:
            return Outcome(stopped=f"node {number} of its workflow has no input {key}: mend small.py")
        workflow[number]["inputs"][key] = value
    return run(asked, work, node, extra, (name, workflow))


def _node(name: str) -> str | None:
    """Return the custom node that a model requires."""
    model = yaml.safe_load((VARIANTS / f"models/{name}.yaml").read_text(encoding="utf-8"))
    nodes = [each.removeprefix("node:") for each in model.get("requires", []) if each.startswith("node:")]
    return nodes[0] if nodes else None


def _linked(node: str, nodes: Path, work: Path) -> list[Path]:
    """Give ComfyUI a node; returns what it wants on Python's path."""
    link = work / "custom_nodes" / node
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(nodes / node)
    described = yaml.safe_load((VARIANTS / f"nodes/{node}.yaml").read_text(encoding="utf-8"))
    return [nodes / each["name"] / each.get("folder", ".") for each in described.get("paths", [])]


def _make(small: Small, asked: argparse.Namespace, work: Path) -> str:
    """Make what is not there yet; returns why it cannot be made, or nothing."""
    wanted = {work / "models" / path: kind for path, kind in small.files.items()}
    wanted |= {work / "input" / path: kind for path, kind in small.inputs.items()}
    for path, kind in wanted.items():
        made = path if kind in FOLDERS else work / "made" / f"{kind}{path.suffix}"
        done = made.with_name(f"{made.name}.done")
        if not (done.exists() and made.exists()):
            command = [str(asked.python), "-m", "workflow_kit.make", str(asked.comfyui.resolve())]
            command += [str((asked.nodes or Path()).resolve()), kind, str(made)]
            ended = subprocess.run(
                command,
                env={**os.environ, "PYTHONPATH": str(HERE)},
                capture_output=True,
                text=True,
                check=False,
            )
            if ended.returncode:
                (work / f"make-{kind}.log").write_text(ended.stderr)
                return f"{kind} cannot be made: {(ended.stderr.strip().splitlines() or ['?'])[-1]}"
            done.touch()
        if made != path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.hardlink_to(made)
    return ""


def _table(outcomes: dict[str, Outcome]) -> str:
    lines = [
        "",
        "| model | sampler | end | seconds | otherwise than published |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, outcome in outcomes.items():
        reached = outcome.sampled or "not reached"
        lines.append(
            f"| {name} | {reached} | {outcome.stopped or 'finished'} | {outcome.seconds:.0f} "
            f"| {MODELS[name].otherwise or 'nothing'} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
