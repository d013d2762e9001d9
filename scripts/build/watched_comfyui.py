"""ComfyUI, started as in a pod to see whether it imports its custom nodes, with its loader watched.

Usage, in ComfyUI's folder: watched_comfyui.py RECORD ARGUMENT...

What the loader does with each node is a line of JSON in RECORD: `begun`, a path; `done`, with the seconds,
the names of the classes that came with it, and `why`, where it was not taken; `returned`, once the loader
has; `ended` and `by`, where ComfyUI ended with an error, and the folder of the node that it came from.
RECORD.stack has where the process is at, once it has got SIGUSR2.

Source: load_custom_node and init_external_custom_nodes of ComfyUI's nodes.py; execute_prestartup_script of
its main.py.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib.machinery
import importlib.util
import json
import logging
import os
import runpy
import signal
import sys
import time
import traceback
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType


class Tell(Protocol):
    """Writes a line of the record."""

    def __call__(self, **facts: Any) -> None:
        """Write it at once: the process may end with the next step."""


def main(record: Path, arguments: list[str]) -> int:
    """Be ComfyUI, with a watched loader; return its exit code."""
    comfyui = Path.cwd()
    file = record.open("a")
    # Asked for where a node does not come to an end.
    faulthandler.register(signal.SIGUSR2, file=record.with_suffix(".stack").open("w"), all_threads=False)

    def tell(**facts: Any) -> None:
        file.write(json.dumps(facts) + "\n")
        file.flush()

    sys.path[0] = str(comfyui)
    sys.argv = ["main.py", *arguments]
    sys.meta_path.insert(0, _Finder(comfyui / "nodes.py", tell))
    status = 0
    try:
        runpy.run_path("main.py", run_name="__main__")
    except SystemExit as end:
        status = _status(end, comfyui, tell)
    except BaseException as error:  # noqa: BLE001 - as the interpreter ends for them all
        traceback.print_exc()
        tell(ended=_why(error, comfyui), by=_owner(error, comfyui))
        status = 1
    with contextlib.suppress(Exception):  # a node may have put something else there
        sys.stdout.flush()
        sys.stderr.flush()
    return status


def _status(end: SystemExit, comfyui: Path, tell: Tell) -> int:
    if end.code is None or isinstance(end.code, int):
        code = end.code or 0
    else:
        sys.stderr.write(f"{end.code}\n")
        code = 1
    if code:
        tell(ended=_why(end, comfyui), by=_owner(end, comfyui))
    return code


class _Finder(MetaPathFinder):
    """Finds ComfyUI's module `nodes`, and has its loader watched as soon as it is there."""

    def __init__(self, path: Path, tell: Tell) -> None:
        self._path, self._tell = path, tell

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,  # noqa: ARG002 - of the interface
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "nodes" or path is not None:
            return None
        loader = _Loader(fullname, str(self._path))
        loader.tell = self._tell
        return importlib.util.spec_from_file_location(fullname, self._path, loader=loader)


class _Loader(importlib.machinery.SourceFileLoader):
    tell: Tell

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        _watch(module, self.tell)


def _watch(nodes: Any, tell: Tell) -> None:
    """Have told what the loader of custom nodes does, from its begin to its end."""
    load, load_all = nodes.load_custom_node, nodes.init_external_custom_nodes
    warnings = _Warnings()

    async def watched(module_path: str, *arguments: Any, **named: Any) -> Any:
        classes, begun = dict(nodes.NODE_CLASS_MAPPINGS), time.perf_counter()
        warnings.last = ("", None)
        tell(begun=module_path)
        try:
            loaded = await load(module_path, *arguments, **named)
        except BaseException as error:
            tell(done=module_path, why=_why(error, Path(module_path)))
            raise
        seconds = time.perf_counter() - begun
        now = nodes.NODE_CLASS_MAPPINGS
        defined = [str(name) for name in now if name not in classes or classes[name] is not now[name]]
        why = None if loaded else _why_not(*warnings.last, Path(module_path))
        tell(done=module_path, why=why, seconds=seconds, classes=defined)
        return loaded

    async def watched_all(*arguments: Any, **named: Any) -> Any:
        nodes.load_custom_node, nodes.logging = watched, warnings
        try:
            result = await load_all(*arguments, **named)
        finally:
            nodes.load_custom_node, nodes.logging = load, logging
        tell(returned=True)
        return result

    nodes.init_external_custom_nodes = watched_all


class _Warnings:
    """`logging` for ComfyUI's loader alone: it keeps the last warning, and the error that it is about."""

    def __init__(self) -> None:
        self.last: tuple[str, BaseException | None] = ("", None)

    def __getattr__(self, name: str) -> Any:
        return getattr(logging, name)

    def warning(self, message: object, *arguments: object) -> None:
        self.last = (str(message), sys.exc_info()[1])
        logging.warning(message, *arguments)  # noqa: LOG015 - as the loader does


def _why_not(said: str, error: BaseException | None, folder: Path) -> str:
    """Return why the loader did not take a node, from its last warning."""
    if "due to the lack of" in said:
        return "it defines no nodes: it has neither NODE_CLASS_MAPPINGS nor comfy_entrypoint"
    if error is None:
        return said or "ComfyUI's loader does not say why"
    why = _why(error, folder)
    return f"its comfy_entrypoint failed: {why}" if "calling comfy_entrypoint" in said else why


def _why(error: BaseException, folder: Path) -> str:
    """Return what went wrong, and the last line of the way there that is the node's own, below its folder."""
    told = traceback.TracebackException.from_exception(error, compact=True)
    places = [(Path(frame.filename), frame.lineno) for frame in told.stack]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((Path(error.filename), error.lineno))
        what = f"{type(error).__name__}: {error.msg}"
    else:
        what = next(told.format_exception_only()).strip()
    inside = [(path.relative_to(folder), line) for path, line in places if path.is_relative_to(folder)]
    return f"{inside[-1][0]}:{inside[-1][1]}: {what}" if inside else what


def _owner(error: BaseException, comfyui: Path) -> str | None:
    """Return the folder of the node whose line was the last on the way to an error."""
    nodes = comfyui / "custom_nodes"
    paths = [Path(frame.f_code.co_filename) for frame, _ in traceback.walk_tb(error.__traceback__)]
    own = [path.relative_to(nodes).parts[0] for path in paths if path.is_relative_to(nodes)]
    return str(nodes / own[-1]) if own else None


if __name__ == "__main__":
    # Threads that nodes have started would be waited for otherwise.
    os._exit(main(Path(sys.argv[1]), sys.argv[2:]))
