"""A service of the pod: a supervised process; its end affects nothing else."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

from pod.util import child_processes, restart, untrusted_files
from pod.util.dataclass import dataclass
from pod.util.ports import taken
from pod.util.say import LONGEST_LINE, line, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import IO

_STOP_SECONDS = 3.0
_PAUSE = 0.05
_LAST_SECONDS = 0.5

# For processes that must not know the pod's variables: nginx's workers run as another user, and even what a
# program has unset can still be read in /proc.
BARE = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/root",
}


@dataclass(frozen=True)
class Service:
    """A service that can be started: `setting` is the variable that moves it to another port.

    One that is `needed` is restarted without limit.
    """

    name: str
    argv: tuple[str, ...]
    environ: Mapping[str, str]
    port: int
    setting: str
    welcome: str
    nice: int = 0
    needed: bool = False


class ServiceSupervisor:
    """Starts a service, and again when it ends by itself; in a thread of its own, which stays while it runs.

    The service is asked to end when this process does, however that comes.
    """

    def __init__(self, service: Service, run: Path) -> None:
        self._service = service
        self._run_folder = str(run)
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()

    def keep(self) -> None:
        """Run the service until it is stopped, or has ended too often."""
        service = self._service
        if self._port_taken():
            say(
                f"port {service.port} is taken already, so {service.name} is not started; "
                f"{service.setting} moves it."
            )
            return
        say(service.welcome)
        restarts = restart.Restarts(restart.SERVICE, forever=service.needed)
        while not self._stopping.is_set():
            begun = time.monotonic()
            status = self._run()
            if self._stopping.is_set():
                return
            pause = restarts.delay(time.monotonic() - begun)
            if pause is None:
                count = restarts.failures
                say(f"{service.name} has ended {count} times, so it stays down; its own lines above say why.")
                return
            say(f"{service.name} has ended ({ending(status)}); it is started again in {pause:g} s.")
            self._stopping.wait(pause)

    def stop(self) -> None:
        """End the service: SIGTERM, then SIGKILL after some seconds."""
        self._stopping.set()
        process = self._process
        if process is not None:
            process.terminate()
            timer = threading.Timer(_STOP_SECONDS, process.kill)
            timer.daemon = True
            timer.start()

    def _run(self) -> int:
        service = self._service
        try:
            self._process = subprocess.Popen(
                child_processes.tied(service.argv, signal.SIGTERM),
                env=child_processes.marked(service.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        except OSError as error:
            say(f"{service.argv[0]} cannot be started: {error.strerror}.")
            return 127
        child_processes.note(self._run_folder, service.setting, self._process.pid)
        if service.nice:
            os.setpriority(os.PRIO_PROCESS, self._process.pid, service.nice)
        # What a service logs may quote strangers.
        reader = threading.Thread(target=_pass_on, args=(self._process.stdout,), daemon=True)
        reader.start()
        status = self._process.wait()
        # nginx's workers outlive a master that is killed, and would keep the port from the next one.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        child_processes.forget(self._run_folder, service.setting)
        reader.join(_LAST_SECONDS)  # a session of sshd lives on and keeps the pipe open
        return status

    def _port_taken(self) -> bool:
        """Tell whether a stranger has the port; what an earlier start of ours left there is ended."""
        service = self._service
        end = time.monotonic() + _STOP_SECONDS
        if child_processes.group(self._run_folder, service.setting):
            while taken(service.port) and time.monotonic() < end and not self._stopping.wait(_PAUSE):
                pass  # it got SIGTERM when its supervisor ended
            if taken(service.port):
                child_processes.end(self._run_folder, service.setting)
        return taken(service.port)


def _pass_on(lines: IO[bytes]) -> None:
    """Put what a service prints into the pod's log, each line as one line that a terminal only shows."""
    cut = False
    with lines:
        while text := lines.readline(LONGEST_LINE):
            rest, cut = cut, not text.endswith(b"\n")
            if rest:
                continue  # what was too long for one line may not stand at the beginning of another
            print(line(text.decode(errors="backslashreplace").rstrip("\n")), file=sys.stderr, flush=True)


def ending(status: int) -> str:
    """Say how a process ended."""
    return f"exit code {status}" if status >= 0 else f"signal {-status}"


def private_folder(path: Path, mode: int = 0o700) -> Path:
    """Make a folder that only its owner may change. Raises OSError."""
    untrusted_files.make_folder(path)
    untrusted_files.set_mode(path, mode, folder=True)
    return path


def write_private(path: Path, content: str | bytes, owner: int | None = None) -> None:
    """Write a file of mode 0600 to a temporary name, then rename it. Raises OSError."""
    with untrusted_files.replacing(path, 0o600) as descriptor:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content.encode() if isinstance(content, str) else content)
        if owner is not None and os.geteuid() == 0:
            os.fchown(descriptor, owner, -1)
