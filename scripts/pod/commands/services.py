"""`services`: the ways into the pod: the door before ComfyUI, but where jobs come, and others when asked for.

They start after ComfyUI. What one of them lacks costs that one alone, and one sentence in the log.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from pathlib import Path

from pod import comfyui_http
from pod.errors import INTERNAL, PodError
from pod.services import (
    config,
    nginx,
    ping_config,
    shell_env,
)
from pod.services.nginx import Ports
from pod.services.service import ServiceSupervisor
from pod.util.say import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType

    from pod.services.config import Access
    from pod.services.service import Service


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Start what is asked for and look after it until SIGTERM; returns the exit code. Raises PodError."""
    if arguments:
        raise PodError(f"services takes no arguments, but got {arguments[0]!r}.", INTERNAL)
    asked = config.read(environ)
    run = Path(environ.get("PODKILN_RUN", "/run/podkiln"))
    try:
        shell_env.write(run, environ)
    except OSError as error:
        say(f"shells will not see the pod's variables: {error.strerror}.")
    supervisors = [ServiceSupervisor(service, run) for service in _prepared(asked, run, environ)]

    def stop(_signal: int, _frame: FrameType | None) -> None:
        for supervisor in supervisors:
            supervisor.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    threads = [threading.Thread(target=supervisor.keep, daemon=True) for supervisor in supervisors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0


def _prepared(asked: Access, run: Path, environ: Mapping[str, str]) -> Iterator[Service]:
    """Yield what is asked for and can be started; the login first: it is the way to ComfyUI."""
    for name, prepare in _preparations(asked, run, environ):
        try:
            yield prepare()
        except subprocess.CalledProcessError as failed:
            say(f"{name} is not started: {failed.cmd[0]} ended with exit code {failed.returncode}.")
        except (OSError, subprocess.SubprocessError, LookupError, ValueError) as error:
            say(f"{name} is not started: {error}.")


def _preparations(
    asked: Access, run: Path, environ: Mapping[str, str]
) -> Iterator[tuple[str, Callable[[], Service]]]:
    """Yield what is asked for by name. Modules are loaded only where they are needed."""
    root = Path(environ.get("PODKILN_ROOT", "/opt/podkiln"))
    workspace = Path(environ.get("WORKSPACE", "/workspace"))
    if asked.door:
        yield _door(asked, root, run, environ)
    if ssh := asked.ssh:
        from pod.services import sshd  # noqa: PLC0415

        yield "sshd", lambda: sshd.prepare(ssh, root, run, workspace)
    if lab := asked.jupyter:
        from pod.services import jupyter  # noqa: PLC0415

        yield "Jupyter", lambda: jupyter.prepare(lab, root, run, workspace, environ)


def _door(
    asked: Access, root: Path, run: Path, environ: Mapping[str, str]
) -> tuple[str, Callable[[], Service]]:
    return (
        "the login before ComfyUI" if asked.login else "the door before ComfyUI",
        lambda: nginx.prepare(asked.login, root, run, _ports(run, environ), comfyui_http.arguments()),
    )


def _ports(run: Path, environ: Mapping[str, str]) -> Ports:
    """Return what `decide` wrote down for the door. Raises OSError, LookupError, ValueError."""
    decision = json.loads((run / "decision.json").read_text(encoding="utf-8"))
    outer = int(decision["port"])
    wish = ping_config.read(environ, outer)
    return Ports(
        outer=outer,
        comfyui=comfyui_http.port(comfyui_http.arguments()),
        ping=config.LOCAL_PORT,
        addresses=tuple(decision["listen"]),
        health_path=wish.path if wish.at_the_door else ping_config.PATH,
    )
