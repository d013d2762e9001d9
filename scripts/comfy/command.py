"""`podkiln-comfy`: run a workflow on a ComfyUI, with pictures from anywhere, and save what comes out.

    podkiln-comfy run WORKFLOW.json [--image [NODE=]FILE|URL]... [--set NODE.INPUT=VALUE]... [--out DIR]
    podkiln-comfy upload FILE|URL... [--subfolder DIR] [--overwrite]

Without --server it speaks to the ComfyUI of this pod. Paths of what was saved, or names of what was uploaded,
go to stdout, a line each; how far it is, to stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
import time
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp

from comfy import workflow
from comfy.answers import Problem
from comfy.client import Client
from comfy.failure import FAILED, TIMED_OUT, UNREACHABLE, USAGE, WORKFLOW_UNREADABLE, ComfyError
from comfy.pictures import opened
from comfy.saving import LARGEST, Saver
from pod import comfyui_http
from pod.util.printable import printable, shown
from pod.util.say import LONGEST_LINE, line

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence

    from comfy.answers import Event, Frame, Outcome
    from comfy.workflow import Nodes, Workflow


def main(argv: list[str]) -> int:
    """Run the command; returns its exit code. Raises ComfyError."""
    options = _parser().parse_args(argv)
    work = _run if options.what == "run" else _upload
    return asyncio.run(work(options))


async def _upload(options: argparse.Namespace) -> int:
    async with _client(options, _Events({})) as client, aiohttp.ClientSession() as web:
        for source in options.sources:
            async with opened(source, web) as picture:
                name = await client.upload(picture, subfolder=options.subfolder, overwrite=options.overwrite)
                print(printable(name, LONGEST_LINE))
    return 0


async def _run(options: argparse.Namespace) -> int:
    read = _read(options.workflow)
    nodes = read.nodes
    values = dict(workflow.assignment(nodes, text, "--set") for text in options.set)
    pictures = workflow.places(nodes, options.image, "--image", os.path.isfile)
    workflow.refuse_doubles([*values, *(target for target, _ in pictures)])
    begun = time.monotonic()
    deadline = _Deadline(options.timeout)
    results = _Results(options, nodes)
    async with _client(options, _Events(nodes), results.take) as client:
        async with aiohttp.ClientSession() as web:  # a session of its own: the login is ComfyUI's alone
            names = {}
            async with deadline.limits("Uploading the pictures"):
                for sent in read.pictures:
                    async with opened(sent.source, web) as picture:
                        names[sent.name] = await client.upload(replace(picture, name=sent.name))
                for target, source in pictures:
                    async with opened(source, web) as picture:
                        results.uploads[str(target)] = values[target] = await client.upload(picture)
        filled = workflow.with_values(workflow.renamed(nodes, names), values)
        outcome = await client.run(filled, deadline.left, workflow.pictured(nodes))
        outcome.problems += results.problems
        try:
            async with deadline.limits("Fetching what came out"):
                await results.fetch(client, outcome)
        except ComfyError as late:
            outcome.problems.append(_problem(late))
    seconds = time.monotonic() - begun
    count = len(results.paths)
    _say(f"done in {seconds:.1f} s: {count} files" + ("" if count else "; no node of it saves any"))
    results.tell(outcome, seconds)
    return _end(outcome.problems)


class _Deadline:
    """The moment at which --timeout ends a run, uploads and downloads included."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + (seconds or 0)

    @property
    def left(self) -> float | None:
        """Seconds until then; None without a limit."""
        return None if self._seconds is None else max(0.001, self._end - time.monotonic())

    @asynccontextmanager
    async def limits(self, what: str) -> AsyncIterator[None]:
        """Stop what is done inside at that moment. Raises ComfyError then."""
        try:
            async with asyncio.timeout(self.left):
                yield
        except TimeoutError:
            raise ComfyError(
                f"{what} has not ended after {self._seconds:g} s and was stopped.", TIMED_OUT
            ) from None


class _Results:
    """What comes out of a run: saved as it comes, and told in the end."""

    def __init__(self, options: argparse.Namespace, nodes: Nodes) -> None:
        self.uploads: dict[str, str] = {}
        self.paths: list[tuple[str, str, Path]] = []  # node, type, where
        self.problems: list[Problem] = []
        self._pictures: dict[str, int] = {}
        self._options = options
        self._nodes = nodes
        self._saver = Saver(options.out, options.max_bytes)

    async def take(self, node: str, frame: Frame) -> None:
        """Save a picture that comes by the websocket alone; one that cannot be saved costs no other."""
        kind = self._nodes[node]["class_type"]
        number = self._pictures[node] = self._pictures.get(node, 0) + 1
        name = f"{kind}_{node}_{number:05}_.{frame.suffix}"
        try:
            await self._save(node, "websocket", "", name, _once(frame.data))
        except ComfyError as error:
            self.problems.append(_problem(error, node))
            if self._saver.full:
                raise

    async def fetch(self, client: Client, outcome: Outcome) -> None:
        """Save the files of the history; one that cannot be fetched becomes one of the outcome's problems."""
        known: set[tuple[str, str, str]] = set()
        for output in outcome.outputs:
            key = (output.type, output.subfolder, output.filename)
            if key in known or (output.type == "temp" and not self._options.temp):
                continue
            known.add(key)
            try:
                async with aclosing(client.content(output)) as chunks:
                    await self._save(output.node, output.type, output.subfolder, output.filename, chunks)
            except ComfyError as error:
                outcome.problems.append(_problem(error, output.node))
                if error.exit_code == UNREACHABLE or self._saver.full:
                    break

    async def _save(
        self, node: str, kind: str, subfolder: str, filename: str, chunks: AsyncIterable[bytes]
    ) -> None:
        path, size = await self._saver.save(subfolder, filename, chunks)
        self.paths.append((node, kind, path))
        _say(f"{path}: {size} bytes")

    def tell(self, outcome: Outcome, seconds: float) -> None:
        """Say on stdout what came out."""
        if not self._options.json:
            for _, _, path in self.paths:
                print(path)
            return
        record = {
            "schema": 1,
            "prompt_id": outcome.prompt_id,
            "seconds": round(seconds, 3),
            "uploads": self.uploads,
            "outputs": [{"node": node, "type": kind, "path": str(path)} for node, kind, path in self.paths],
            "texts": outcome.texts,
            "errors": [{"node": problem.node, "message": problem.says} for problem in outcome.problems],
        }
        json.dump(record, sys.stdout, indent=1)
        print()


def _problem(error: ComfyError, node: str | None = None) -> Problem:
    return Problem(str(error).rstrip("."), node, exit_code=error.exit_code)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _end(problems: Sequence[Problem]) -> int:
    """Return 0, or raise ComfyError with what went wrong; of several each is said before."""
    if not problems:
        return 0
    said = [f"{problem.says[:1].upper()}{problem.says[1:]}." for problem in problems]
    if len(said) == 1:
        raise ComfyError(said[0], problems[0].exit_code)
    for sentence in said:
        _say(f"podkiln: {sentence}")
    code = next((each.exit_code for each in problems if each.exit_code != FAILED), FAILED)
    raise ComfyError(f"{len(said)} things failed, as the lines above say; the rest was saved.", code)


def _read(path: str) -> Workflow:
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise ComfyError(f"{shown(path)} cannot be read: {error.strerror}.", WORKFLOW_UNREADABLE) from None
    except ValueError:  # a NUL byte
        raise ComfyError(f"{shown(path)} is not the name of a file.", WORKFLOW_UNREADABLE) from None
    return workflow.parse(data, "the workflow on stdin" if path == "-" else shown(path))


def _client(
    options: argparse.Namespace,
    events: _Events,
    take: Callable[[str, Frame], Awaitable[None]] | None = None,
) -> Client:
    server = options.server or comfyui_http.address(comfyui_http.arguments())
    if not _is_address(server):
        raise ComfyError(
            f"--server {shown(server)!r} is not an address such as http://127.0.0.1:8188.", USAGE
        )
    user, password = os.environ.get("WEB_USER", ""), os.environ.get("WEB_PASSWORD", "")
    if ":" in user:
        raise ComfyError("WEB_USER holds a colon, which no login by HTTP can hold.", USAGE)
    # On the way to ComfyUI itself there is no login, so its password stays here.
    login = (user, password) if options.server and user and password else None
    return Client(server, login, events, take=take, trusted=not options.server)


def _is_address(server: str) -> bool:
    if not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s?#]*)?", server, re.IGNORECASE):
        return False
    try:
        parts = urlsplit(server)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # unclosed brackets, or an invalid port
        return False


class _Events:
    """Says on stderr which node is at work, and on a terminal how far it is."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._terminal = sys.stderr.isatty()

    def __call__(self, event: Event) -> None:
        """Take an event of ComfyUI's websocket."""
        known = event.data.get("nodes")
        if event.kind == "execution_cached" and isinstance(known, list) and known:
            _say(f"{len(known)} of {len(self._nodes)} nodes are known from before")
        elif event.kind == "executing" and event.node:
            _say(f"node {workflow.title(self._nodes, event.node)}")
        elif event.kind == "progress" and self._terminal:
            value, most = event.data.get("value"), event.data.get("max")
            end = "\n" if value == most else "\r"
            print(f"  {shown(value, 12)} of {shown(most, 12)} ", end=end, file=sys.stderr, flush=True)


def _say(text: str) -> None:
    print(line(text), file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="podkiln-comfy", description="Run a workflow on ComfyUI, and save what comes out."
    )
    commands = parser.add_subparsers(dest="what", required=True, metavar="run|upload")
    run = commands.add_parser("run", help="upload, queue, wait, save")
    run.add_argument(
        "workflow",
        metavar="WORKFLOW",
        help="a file of ComfyUI's Export (API), or a worker's request; - for stdin",
    )
    run.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="[NODE=]FILE|URL",
        help="upload this and load it in a node, named by number, title or class (NODE.INPUT=…: an input "
        "other than `image`); without a name, in the next node that loads an image",
    )
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NODE.INPUT=VALUE",
        help="set an input; VALUE is JSON or text",
    )
    run.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where to save (here)")
    run.add_argument("--temp", action="store_true", help="save previews too")
    run.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="stop after this long, uploads and downloads included",
    )
    run.add_argument(
        "--max-bytes",
        type=_bytes,
        default=LARGEST,
        metavar="N",
        help="save no more than this in all, such as 500M or 64G (16G)",
    )
    run.add_argument("--json", action="store_true", help="say what came out as JSON, on stdout")
    upload = commands.add_parser(
        "upload", help="upload pictures, and print the names that workflows use for them"
    )
    upload.add_argument("sources", nargs="+", metavar="FILE|URL")
    upload.add_argument("--subfolder", default="", metavar="DIR", help="below ComfyUI's input folder")
    upload.add_argument("--overwrite", action="store_true", help="replace a file of this name")
    for command in (run, upload):
        command.add_argument(
            "--server", metavar="URL", help="another ComfyUI (login: WEB_USER, WEB_PASSWORD)"
        )
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text[:30])
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("give a number of seconds above 0")
    return value


def _bytes(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,15})([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
    if not found or not int(found[1]):
        raise argparse.ArgumentTypeError("give a number of bytes above 0, such as 500M or 64G")
    return int(found[1]) << (10 * " KMGT".index(found[2].upper() or " "))
