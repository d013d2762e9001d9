"""What the supervisor looks after: ComfyUI, or the server of a model in its place; and how the two differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pod import comfyui_http, model_server_http, server_decision
from pod.errors import ARGUMENTS_REFUSED, DATA_UNREADABLE, SETTING_MALFORMED, UNFIT
from pod.supervisor import boot_timeline, log_file, process
from pod.util import serving

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NON_RETRYABLE_EXIT_CODES = (0, 2)
# Ends of a server that another start would not change: it was told to end, or said what is wrong.
_FINAL = (0, ARGUMENTS_REFUSED, DATA_UNREADABLE, UNFIT, SETTING_MALFORMED)


class Program:
    """ComfyUI. `title` is what it is called in a sentence; `variable` says its port."""

    title = "ComfyUI"
    name = process.NAME
    log = log_file.NAME
    variable = "COMFYUI_PORT"
    patience = boot_timeline.PATIENCE
    listens = True
    has_beside = True
    """Whether the door before it, and what takes jobs for it, are processes of their own."""

    def start(self, argv: Sequence[str], run: str) -> process.ComfyProcess | process.ServerProcess:
        """Start it. Raises OSError."""
        return process.ComfyProcess(argv, run)

    def problem(self, timeout: float = comfyui_http.TIMEOUT) -> str | None:
        """Ask it once. Returns None when it serves, else one sentence."""
        return comfyui_http.problem(timeout)

    def port(self) -> int:
        """Return the port that it listens on."""
        return comfyui_http.port(comfyui_http.arguments())

    def final(self, status: int, *, served: bool) -> str:
        """Say what an end means after which it is not started again; nothing for one after which it is."""
        if served or status not in NON_RETRYABLE_EXIT_CODES:
            return ""
        return f"ComfyUI has ended before it served, and would again, {serving.STOPS}"


class ModelServer(Program):
    """The server of a model. As the worker of an endpoint's queue it listens nowhere."""

    title = server_decision.TITLE
    name = process.SERVER
    log = process.SERVER
    variable = "PORT"
    patience = float("inf")  # it may have to fetch its model, and says how far that is
    has_beside = False

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.listens = not environ.get(serving.ENDPOINT)

    def start(self, argv: Sequence[str], run: str) -> process.ServerProcess:
        """Start it. Raises OSError."""
        return process.ServerProcess(argv, run)

    def problem(self, timeout: float = model_server_http.TIMEOUT) -> str | None:
        """Ask it once. Returns None when it serves, else one sentence."""
        return model_server_http.problem(timeout)

    def port(self) -> int:
        """Return the port that it listens on."""
        return model_server_http.address()[1]

    def final(self, status: int, *, served: bool) -> str:  # noqa: ARG002 - it ends with 0 when it is to be new
        """Say what an end means after which it is not started again; nothing for one after which it is."""
        return f"The model server has ended, {serving.STOPS}" if status in _FINAL else ""


def of(environ: Mapping[str, str]) -> Program:
    """Return what an image has."""
    return Program() if serving.has_comfyui(environ) else ModelServer(environ)
