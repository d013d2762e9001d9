"""Whether ComfyUI answers: the image's health check, and what the boot timeline waits for."""

from __future__ import annotations

import http.client
import os
import sys

PATH = "/system_stats"
# Docker gives the check 5 s in all.
TIMEOUT = 4.0


def port() -> int:
    """Return the port that ComfyUI was told to listen on; what a user passed in COMFYUI_ARGS wins."""
    run = os.environ.get("PODKILN_RUN", "/run/podkiln")
    try:
        with open(f"{run}/comfyui.args", encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs 10 ms here
            arguments = file.read().split("\0")
    except OSError:
        arguments = []
    chosen = os.environ.get("COMFYUI_PORT") or "8188"
    for number, argument in enumerate(arguments):
        if argument.startswith("--port="):
            chosen = argument.removeprefix("--port=")
        elif argument == "--port" and number + 1 < len(arguments):
            chosen = arguments[number + 1]
    return int(chosen)


def problem(timeout: float = TIMEOUT) -> str | None:
    """Ask ComfyUI once. Returns None when it serves, else one sentence."""
    where = port()
    connection = http.client.HTTPConnection("127.0.0.1", where, timeout=timeout)
    try:
        connection.request("GET", PATH)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"ComfyUI does not answer on port {where}: {error or type(error).__name__}."
    finally:
        connection.close()
    return None if status == http.HTTPStatus.OK else f"ComfyUI answers {status} to {PATH}."


def main(_arguments: list[str]) -> int:
    """Exit 0 when healthy, 1 with the reason when not."""
    reason = problem()
    if reason:
        print(reason, file=sys.stderr)
        return 1
    return 0
