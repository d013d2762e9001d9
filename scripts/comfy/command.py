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
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import aiohttp

from comfy import workflow
from comfy.client import Client
from comfy.failure import USAGE, WORKFLOW_UNREADABLE, ComfyError
from comfy.pictures import opened
from pod import health

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comfy.client import Outcome, Output
    from comfy.workflow import Nodes


def main(argv: list[str]) -> int:
    """Run the command; returns its exit code. Raises ComfyError."""
    options = _parser().parse_args(argv)
    work = _run if options.what == "run" else _upload
    return asyncio.run(work(options))


async def _upload(options: argparse.Namespace) -> int:
    async with _client(options, _Events({})) as client, aiohttp.ClientSession() as web:
        for source in options.sources:
            async with opened(source, web) as picture:
                print(await client.upload(picture, subfolder=options.subfolder, overwrite=options.overwrite))
    return 0


async def _run(options: argparse.Namespace) -> int:
    nodes = _read(options.workflow)
    values = dict(workflow.assignment(nodes, text, "--set") for text in options.set)
    pictures = workflow.places(nodes, options.image, "--image")
    begun = time.monotonic()
    async with _client(options, _Events(nodes)) as client:
        uploads: dict[str, str] = {}
        async with aiohttp.ClientSession() as web:  # a session of its own: the login is ComfyUI's alone
            for target, source in pictures:
                async with opened(source, web) as picture:
                    uploads[str(target)] = values[target] = await client.upload(picture)
        outcome = await client.run(workflow.with_values(nodes, values), options.timeout)
        paths = [
            (output, _place(options.out, output))
            for output in outcome.outputs
            if output.type != "temp" or options.temp
        ]
        for output, path in paths:
            size = await client.save(output, path)
            _say(f"{path}: {size} bytes")
    seconds = time.monotonic() - begun
    _say(f"done in {seconds:.1f} s: {len(paths)} files" + ("" if paths else "; no node of it saves any"))
    _tell(options, outcome, paths, uploads, seconds)
    return 0


def _tell(
    options: argparse.Namespace,
    outcome: Outcome,
    paths: Sequence[tuple[Output, Path]],
    uploads: dict[str, str],
    seconds: float,
) -> None:
    if not options.json:
        for _, path in paths:
            print(path)
        return
    outputs = [{"node": output.node, "type": output.type, "path": str(path)} for output, path in paths]
    json.dump(
        {
            "schema": 1,
            "prompt_id": outcome.prompt_id,
            "seconds": round(seconds, 3),
            "uploads": uploads,
            "outputs": outputs,
            "texts": outcome.texts,
        },
        sys.stdout,
        indent=1,
    )
    print()


def _read(path: str) -> Nodes:
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise ComfyError(f"{path} cannot be read: {error.strerror}.", WORKFLOW_UNREADABLE) from None
    return workflow.parse(data, "the workflow on stdin" if path == "-" else path)


def _place(out: Path, output: Output) -> Path:
    """Return where an output is saved: its own folder and name below `out`, and never above it."""
    parts = [part for part in PurePosixPath(output.subfolder).parts if part not in ("/", "..", ".")]
    return out.joinpath(*parts, PurePosixPath(output.filename).name)


def _client(options: argparse.Namespace, events: _Events) -> Client:
    server = options.server or _of_this_pod()
    if not re.fullmatch(r"https?://[^\s/@]+(/\S*)?", server):
        raise ComfyError(f"--server {server!r} is not an address such as http://127.0.0.1:8188.", USAGE)
    user, password = os.environ.get("WEB_USER", ""), os.environ.get("WEB_PASSWORD", "")
    if ":" in user:
        raise ComfyError("WEB_USER holds a colon, which no login by HTTP can hold.", USAGE)
    # On the way to ComfyUI itself there is no login, so its password stays here.
    login = (user, password) if options.server and user and password else None
    return Client(server, login, events, trusted=not options.server)


def _of_this_pod() -> str:
    given = health.arguments()
    scheme = "https" if health.value("--tls-certfile", given) else "http"
    host = health.host(given)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{health.port(given)}"


class _Events:
    """Says on stderr which node is at work, and on a terminal how far it is."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._terminal = sys.stderr.isatty()

    def __call__(self, kind: str, data: dict[str, Any]) -> None:
        """Take an event of ComfyUI's websocket."""
        if kind == "execution_cached" and data.get("nodes"):
            _say(f"{len(data['nodes'])} of {len(self._nodes)} nodes are known from before")
        elif kind == "executing" and data.get("node"):
            _say(f"node {workflow.title(self._nodes, str(data.get('display_node') or data['node']))}")
        elif kind == "progress" and self._terminal:
            end = "\n" if data.get("value") == data.get("max") else "\r"
            print(f"  {data.get('value')} of {data.get('max')} ", end=end, file=sys.stderr, flush=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="podkiln-comfy", description="Run a workflow on ComfyUI, and save what comes out."
    )
    commands = parser.add_subparsers(dest="what", required=True, metavar="run|upload")
    run = commands.add_parser("run", help="upload, queue, wait, save")
    run.add_argument("workflow", metavar="WORKFLOW", help="a file of ComfyUI's Export (API); - for stdin")
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
    run.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="stop the prompt after this long")
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
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("give a number of seconds above 0")
    return value
