"""The real ComfyUI, started for one workflow: what became of it, in ComfyUI's own words."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workflow_kit.small import SAMPLERS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

START_LIMIT = 300.0  # seconds
PAUSE = 0.5


@dataclass(frozen=True)
class Outcome:
    """What became of a workflow.

    Attributes:
        sampled: How far the sampler came; "" where it was not reached.
        stopped: What stopped it; "" where it finished.
        seconds: Of the prompt.
    """

    sampled: str = ""
    stopped: str = ""
    seconds: float = 0

    @property
    def sentence(self) -> str:
        """Return it for a person."""
        return f"sampler {self.sampled or 'not reached'}; {self.stopped or 'finished'} ({self.seconds:.0f} s)"


def run(
    asked: argparse.Namespace, work: Path, node: str | None, extra: list[Path], named: tuple[str, Any]
) -> Outcome:
    """Start ComfyUI with one node, run one workflow, and stop it. The log is WORK/NAME.log."""
    name, workflow = named
    log = work / f"{name}.log"
    with _started(asked, work, node, extra, log) as (process, port):
        if not _ready(process, port):
            return Outcome(stopped=f"ComfyUI did not start: {_last(log)}")
        begun = time.monotonic()
        try:
            number = _ask(port, "/prompt", {"prompt": workflow})["prompt_id"]
        except urllib.error.HTTPError as refused:
            return Outcome(stopped=f"refused: {_refusal(json.loads(refused.read()))}")
        while process.poll() is None and time.monotonic() - begun < asked.limit:
            with contextlib.suppress(OSError):  # where it has ended, that is seen next
                if found := _ask(port, f"/history/{number}").get(number):
                    return read(found, workflow, time.monotonic() - begun)
            time.sleep(PAUSE)
        why = "it took too long" if process.poll() is None else f"ComfyUI ended with {process.returncode}"
        return Outcome(stopped=f"{why}; its log ends: {_last(log)}", seconds=time.monotonic() - begun)


@contextlib.contextmanager
def _started(
    asked: argparse.Namespace, work: Path, node: str | None, extra: list[Path], log: Path
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(asked.python), "main.py", "--cpu", "--port", str(port), "--base-directory", str(work)]
    command += ["--disable-api-nodes", "--disable-all-custom-nodes", "--database-url", "sqlite:///:memory:"]
    command += ["--whitelist-custom-nodes", node] if node else []
    # Its page is a package of its own, which nothing here needs.
    page = work / "page"
    page.mkdir(parents=True, exist_ok=True)
    command += ["--front-end-root", str(page)]
    path = os.pathsep.join(str(each) for each in extra)
    # Nothing is fetched: what is missing has to show.
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=asked.comfyui, env=environment, stdout=file, stderr=file)
        try:
            yield process, port
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ready(process: subprocess.Popen[bytes], port: int) -> bool:
    begun = time.monotonic()
    while process.poll() is None and time.monotonic() - begun < START_LIMIT:
        with contextlib.suppress(OSError):
            _ask(port, "/system_stats")
            return True
        time.sleep(PAUSE)
    return False


def _ask(port: int, path: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def _refusal(answer: Any) -> str:
    """Return what ComfyUI finds wrong with a workflow."""
    said = [
        f"node {number} ({about.get('class_type')}): {each.get('message')} ({each.get('details')})"
        for number, about in answer.get("node_errors", {}).items()
        for each in about.get("errors", [])
    ]
    return "; ".join(said) or str(answer.get("error", answer))


def read(found: Any, workflow: Any, seconds: float) -> Outcome:
    """Read an entry of ComfyUI's history."""
    samplers = [number for number, node in workflow.items() if node["class_type"] in SAMPLERS]
    status = found["status"]
    failure = next((data for kind, data in status["messages"] if kind == "execution_error"), None)
    if status["status_str"] == "success" and not failure:
        return Outcome(sampled="done", seconds=seconds)
    if failure is None:
        return Outcome(stopped=f"{status['status_str']}, without a reason", seconds=seconds)
    said = " ".join(str(failure["exception_message"]).split())
    stopped = (
        f"stopped in node {failure['node_id']} ({failure['node_type']}): {failure['exception_type']}: {said}"
    )
    done = set(failure["executed"])
    sampled = ""
    if any(number in done for number in samplers):
        sampled = "done" if all(number in done for number in samplers) else "the first of them done"
    elif failure["node_id"] in samplers:
        sampled = "begun"
    return Outcome(sampled, stopped, seconds)


def _last(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "nothing"
