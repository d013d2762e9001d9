"""Have ComfyUI import the custom nodes of an image, and say which of them it cannot.

Usage: import_nodes.py COMFYUI PASSED ID=FOLDER...

ComfyUI starts as in a pod, on the CPU and with `--quick-test-for-ci`, which ends it before it serves; its
loader is watched (watched_comfyui.py). What the loader did with each node, and that it returned, decides
alone: what nodes print is only shown, escaped and cut. PASSED is written once all nodes are imported;
otherwise each that is not is one sentence with the node's own line, and the build ends.

Source: BUILDKIT_STEP_LOG_MAX_SIZE (2 MiB) and BUILDKIT_STEP_LOG_MAX_SPEED (200 KiB/s) of BuildKit: of a step
that says more it shows no end.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS_ALTOGETHER = 1800
SECONDS_TO_BEGIN = 600
SECONDS_OF_ONE = 300
"""How long ComfyUI may take from its start to the first node, and for each."""
ARGUMENTS = ("--cpu", "--quick-test-for-ci", "--disable-auto-launch", "--disable-api-nodes")
# Nobody answers here; a hub that is asked would be waited for.
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
WATCHED = Path(__file__).resolve().with_name("watched_comfyui.py")
HEAD, TAIL = 96 << 10, 32 << 10
"""Bytes of what ComfyUI says that are shown as they come, and of its end."""
REASON = 400
CLASSES = 5
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
FRAME = re.compile(r'^ +File "(.+?)", line (\d+)', re.MULTILINE)


@dataclass
class Record:
    """What the loader did: `done` by path, with `why` where a node was not taken.

    `begun`: the path of the node that it was at when it ended. `ended`: why ComfyUI ended by itself with an
    error, and the folder of the node that the error came from.
    """

    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    begun: str | None = None
    returned: bool = False
    ended: str | None = None
    by: str | None = None

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read what was written; a last line may be half."""
        record = cls()
        for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
            with contextlib.suppress(ValueError):
                record.take(json.loads(line))
        return record

    def take(self, facts: dict[str, Any]) -> None:
        """Take one line of it."""
        if "begun" in facts:
            self.begun = facts["begun"]
        elif "done" in facts:
            self.done[facts["done"]], self.begun = facts, None
        elif "returned" in facts:
            self.returned = True
        elif "ended" in facts:
            self.ended, self.by = facts["ended"], facts["by"]


class Output:
    """Shows what ComfyUI says: escaped, the first of it as it comes, and the end of it when it has ended."""

    def __init__(self, stream: int) -> None:
        self._stream = stream
        self._left, self._partial, self._tail, self._more = HEAD, b"", b"", 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while chunk := os.read(self._stream, 1 << 16):
            self._tail = (self._tail + chunk)[-TAIL:]
            if self._left <= 0:
                self._more += len(chunk)
                continue
            *lines, self._partial = (self._partial + chunk).replace(b"\r", b"\n").split(b"\n")
            if len(self._partial) >= self._left:
                lines.append(self._partial)
                self._partial = b""
            for line in lines:
                self._show(line[: max(self._left, 0)])
                self._left -= len(line) + 1

    def end(self) -> str:
        """Show the rest; return the last line. What still holds the stream is not waited for."""
        self._thread.join(5)
        if self._more > TAIL:
            self._show(b"[... %d kB are not shown]" % ((self._more - TAIL) >> 10))
        rest = self._tail[-self._more :] if self._more else self._partial
        for line in re.split(rb"[\r\n]+", rest.strip()):
            self._show(line)
        lines = [line for line in re.split(rb"[\r\n]+", self._tail) if line.strip()]
        return one_line(lines[-1].decode(errors="replace")) if lines else "it said nothing"

    @staticmethod
    def _show(line: bytes) -> None:
        """Show a line, indented: it is none of podkiln's, whatever it says."""
        if shown := escaped(line.decode(errors="replace")).rstrip():
            os.write(2, f"  {shown}\n".encode())


def escaped(text: str) -> str:
    """Return a text without colours, and with all else that a terminal would obey written out."""
    text = COLOURS.sub("", text)
    return "".join(
        each if each.isprintable() or each == "\t" else each.encode("unicode_escape", "replace").decode()
        for each in text
    )


def one_line(text: str) -> str:
    """Return a text as part of a sentence."""
    text = escaped(" ".join(text.split())).rstrip(". ")
    return text if len(text) <= REASON else f"{text[:REASON]}…"


def run(comfyui: Path, record: Path) -> tuple[int | None, str]:
    """Start ComfyUI; return how it ended, None where it had to be ended, and the last line that it said."""
    process = subprocess.Popen(
        [sys.executable, str(WATCHED), str(record), *ARGUMENTS],
        cwd=comfyui,
        env={**os.environ, **OFFLINE},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    output = Output(process.stdout.fileno())
    try:
        status = _wait(process, record)
    finally:
        # What nodes have started in the background ends with it: an image is not waited for that.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return status, output.end()


def _wait(process: subprocess.Popen[bytes], record: Path) -> int | None:
    begun = since = time.monotonic()
    seen = 0
    while process.poll() is None:
        now, size = time.monotonic(), record.stat().st_size if record.exists() else 0
        if size != seen:
            seen, since = size, now
        if now - since > (SECONDS_OF_ONE if seen else SECONDS_TO_BEGIN) or now - begun > SECONDS_ALTOGETHER:
            process.send_signal(signal.SIGUSR2)
            time.sleep(1)
            return None
        time.sleep(0.05)
    return process.returncode


def ending(status: int) -> str:
    """Return how a process ended."""
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"


def own_line(stack: Path, folder: Path) -> str:
    """Return where a node was when it was asked: the innermost line of its own, FILE:LINE."""
    frames = FRAME.findall(stack.read_text(errors="replace")) if stack.exists() else []
    return next(
        (
            f"{Path(path).relative_to(folder)}:{line}"
            for path, line in frames
            if Path(path).is_relative_to(folder)
        ),
        "",
    )


@dataclass(frozen=True)
class Outcome:
    """How ComfyUI ended, None where it had to be ended; its last line, and where a node was at the time."""

    record: Record
    status: int | None
    last: str
    stack: Path

    def reasons(self) -> dict[str, str]:
        """Return why nodes were not imported, by path."""
        record = self.record
        why = {path: facts["why"] for path, facts in record.done.items() if facts["why"] is not None}
        if record.begun and self.status is None:
            line = own_line(self.stack, Path(record.begun))
            place = f", at {line}" if line else ""
            why[record.begun] = f"ComfyUI was still importing it after {SECONDS_OF_ONE} s{place}"
        elif record.begun and self.status is not None:
            why[record.begun] = f"it ended ComfyUI with {ending(self.status)}"
        elif record.by and record.ended:
            why.setdefault(record.by, record.ended)
        return why

    def problems(self, folders: dict[str, Path]) -> list[str]:
        """Return a sentence for each node that was not imported, or one for what else went wrong."""
        why, ours = self.reasons(), {str(folder): name for name, folder in folders.items()}
        if self.record.returned:
            lost = [path for path in ours if path not in self.record.done]
            why |= dict.fromkeys(lost, "ComfyUI's loader did not come to it")
        # One that is none of the image's is named where ComfyUI ended by it.
        paths = [path for path in (*ours, *why) if path in why and (path in ours or not self.record.returned)]
        found = [
            f"The custom node {ours.get(path, path)} cannot be imported: {one_line(why[path])}."
            for path in dict.fromkeys(paths)
        ]
        if found or (self.record.returned and self.status == 0):
            return found
        return [f"The custom nodes cannot be imported: {self._ended(folders)}."]

    def _ended(self, folders: dict[str, Path]) -> str:
        when = "after" if self.record.returned else "before"
        if self.status is None:
            return f"ComfyUI did not end by itself {when} it had imported them"
        early = [name for name, folder in folders.items() if (folder / "prestartup_script.py").is_file()]
        first = (
            f" (before it, the prestartup_script.py of {', '.join(early)})"
            if early and when == "before"
            else ""
        )
        return f"ComfyUI ended with {ending(self.status)} {when} it had imported them{first}: {self.last}"


def twice(folders: dict[str, Path], record: Record) -> Iterator[str]:
    """Yield a sentence for nodes that define classes of the same name: ComfyUI has one of them, silently."""
    names = {str(folder): name for name, folder in folders.items()}
    owners: dict[str, list[str]] = {}
    for path, facts in record.done.items():
        for each in facts.get("classes", ()):
            owners.setdefault(each, []).append(names.get(path, path))
    pairs: dict[tuple[str, ...], list[str]] = {}
    for each, both in owners.items():
        if len(both) > 1:
            pairs.setdefault(tuple(sorted(both)), []).append(each)
    for sharing, classes in pairs.items():
        more = f" and {len(classes) - CLASSES} more" if len(classes) > CLASSES else ""
        which = f"{', '.join(escaped(each) for each in sorted(classes)[:CLASSES])}{more}"
        yield (
            f"{' and '.join(sharing)} both define the node class {which}: "
            "ComfyUI has that of the one that it loads last, and the order may differ in a pod."
        )


def main(arguments: list[str]) -> int:
    """Import the nodes, and say how long each took."""
    comfyui, passed = Path(arguments[0]), Path(arguments[1])
    folders = {
        name: comfyui / "custom_nodes" / folder
        for name, _, folder in (each.partition("=") for each in arguments[2:])
    }
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "record"
        status, last = run(comfyui, path)
        record = Record.read(path)
        found = Outcome(record, status, last, path.with_suffix(".stack")).problems(folders)
    # What is wrong comes last, since BuildKit repeats the end of a failed step alone.
    for each in twice(folders, record):
        sys.stderr.write(f"podkiln: warning: {each}\n")
    for each in found:
        sys.stderr.write(f"podkiln: {each}\n")
    if found:
        return 1
    seconds = {name: record.done[str(folder)]["seconds"] for name, folder in folders.items()}
    rows = "".join(f"{took:6.1f} s  {name}\n" for name, took in seconds.items())
    sys.stdout.write(f"podkiln: imported without a network:\n{rows}")
    passed.write_text("all custom nodes were imported\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
