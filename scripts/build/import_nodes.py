"""Have ComfyUI import the custom nodes of an image, and say which of them it cannot.

Usage: import_nodes.py COMFYUI PASSED ID=FOLDER...

ComfyUI starts as in a pod, on the CPU and with `--quick-test-for-ci`, which ends it before it serves. What
its own loader logs is read. PASSED is written once all nodes are imported; otherwise each that is not is one
sentence with the node's own line, and the build ends.

Source: load_custom_node and init_external_custom_nodes of ComfyUI's nodes.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

SECONDS = 1800
ARGUMENTS = ("--cpu", "--quick-test-for-ci", "--disable-auto-launch", "--disable-api-nodes")
# Nobody answers here; a hub that is asked would be waited for.
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
TIMES = re.compile(r"([0-9.]+) seconds( \(IMPORT FAILED\))?: (/\S.*)$", re.MULTILINE)
TRACEBACK = "Traceback (most recent call last):"
FRAME = re.compile(r'^ +File "(.+?)", line (\d+)', re.MULTILINE)
LAST = re.compile(r"[A-Za-z_][\w.]*(?::.*)?")
"""The line of a traceback that says what went wrong: the only one that begins with a name."""


def run(comfyui: Path) -> tuple[int | None, str]:
    """Start ComfyUI; return how it ended, None where it did not, and what it said."""
    argv = [sys.executable, "main.py", *ARGUMENTS]
    try:
        done = subprocess.run(
            argv,
            cwd=comfyui,
            env={**os.environ, **OFFLINE},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as endless:
        return None, _text(endless.stdout)
    return done.returncode, _text(done.stdout)


def _text(said: bytes | None) -> str:
    return COLOURS.sub("", (said or b"").decode(errors="replace"))


def imported(said: str) -> dict[str, float]:
    """Return the seconds that each node took that was imported, by its path."""
    return {path.strip(): float(seconds) for seconds, failed, path in TIMES.findall(said) if not failed}


def reason(said: str, folder: Path) -> str:
    """Return why a node was not imported: its own line, and what went wrong there."""
    failed = re.search(rf"Cannot import {re.escape(str(folder))} module for custom nodes: (.*)", said)
    if failed is None:
        other = re.search(rf"Error while calling comfy_entrypoint in {re.escape(str(folder))}: (.*)", said)
        if other:
            return f"its comfy_entrypoint failed: {other[1].strip()}"
        if f"Skip {folder} module" in said:
            return "it defines no nodes: it has neither NODE_CLASS_MAPPINGS nor comfy_entrypoint"
        return "ComfyUI's loader did not come to it"
    told = said[: failed.start()].rpartition(TRACEBACK)[2]
    place = own_line(told, folder)
    last = [line.strip() for line in told.splitlines() if LAST.fullmatch(line)]
    what = last[-1] if last else failed[1].strip()
    return f"{place}: {what}" if place else what


def own_line(traceback: str, folder: Path) -> str:
    """Return the last line of a traceback that is the node's own: FILE:LINE below its folder."""
    frames = [(Path(path), line) for path, line in FRAME.findall(traceback)]
    inside = [(path, line) for path, line in frames if path.is_relative_to(folder)]
    return f"{inside[-1][0].relative_to(folder)}:{inside[-1][1]}" if inside else ""


def ended(said: str, status: int | None, folders: dict[str, Path]) -> str:
    """Return why ComfyUI ended before it had imported all nodes."""
    if status is None:
        return f"ComfyUI did not end within {SECONDS} s"
    told = said.rpartition(TRACEBACK)[2]
    owner = next((name for name, folder in folders.items() if own_line(told, folder)), "")
    place = f"{owner}/{own_line(told, folders[owner])}: " if owner else ""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return f"ComfyUI ended with exit code {status}: {place}{lines[-1] if lines else 'it said nothing'}"


def main(arguments: list[str]) -> int:
    """Import the nodes, and say how long each took."""
    comfyui, passed = Path(arguments[0]), Path(arguments[1])
    folders = {
        name: comfyui / "custom_nodes" / folder
        for name, _, folder in (each.partition("=") for each in arguments[2:])
    }
    status, said = run(comfyui)
    # What is wrong comes last, since BuildKit repeats the end of a failed step alone: so both to one stream.
    sys.stderr.write(said)
    there = imported(said)
    lacking = {name: folder for name, folder in folders.items() if str(folder) not in there}
    if status != 0 and not any(str(folder) in said for folder in lacking.values()):
        sys.stderr.write(f"podkiln: The custom nodes cannot be imported: {ended(said, status, folders)}.\n")
        return 1
    for name, folder in lacking.items():
        sys.stderr.write(f"podkiln: The custom node {name} cannot be imported: {reason(said, folder)}.\n")
    if lacking or status != 0:
        return 1
    seconds = "".join(f"{there[str(folder)]:6.1f} s  {name}\n" for name, folder in folders.items())
    sys.stdout.write(f"podkiln: imported without a network:\n{seconds}")
    passed.write_text("all custom nodes were imported\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
