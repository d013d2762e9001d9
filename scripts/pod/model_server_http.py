"""Whether the server of a model answers, and has its model loaded: for the health check and the supervisor.

It answers /ping with 204 while it fetches and loads, and with 200 once it serves. As the worker of an
endpoint's queue it listens nowhere; there it is healthy as long as it runs.
"""

from __future__ import annotations

import http.client
import json
import os

from pod.util import child_processes, serving

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "server"  # under which its process group is noted (pod.supervisor.process)
PATH = "/ping"
# Docker gives the check 5 s in all.
TIMEOUT = 4.0


def address(environ: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """Return where to ask it: the address that it was told to listen on, and the port that was decided."""
    host = environ.get("SERVE_HOST", "").strip().strip("[]")
    run = environ.get("PODKILN_RUN") or "/run/podkiln"
    try:
        with open(f"{run}/decision.json", encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs 10 ms here
            port = int(json.load(file)["port"])
    except (OSError, ValueError, LookupError, TypeError):
        port = 8000
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104 - compared, not bound


def problem(timeout: float = TIMEOUT, environ: Mapping[str, str] = os.environ) -> str | None:
    """Ask it once. Returns None when it serves, else one sentence."""
    if environ.get(serving.ENDPOINT):
        runs = child_processes.group(environ.get("PODKILN_RUN") or "/run/podkiln", NAME)
        return None if runs is not None else "the model server does not run."
    host, port = address(environ)
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", PATH)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException, ValueError) as error:
        from pod.util.printable import shown  # noqa: PLC0415 - a healthy pod does without it

        return f"the model server does not answer on port {port}: {shown(error) or type(error).__name__}."
    finally:
        connection.close()
    if status == http.HTTPStatus.NO_CONTENT:
        return "the model server has not loaded its model yet."
    return None if status == http.HTTPStatus.OK else f"the model server answers {status} to {PATH}."
