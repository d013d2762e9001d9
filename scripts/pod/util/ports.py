"""Whether the ports that a pod is to listen on are free, and if not, which process has them.

Format of /proc/net/tcp: proc_pid_net(5); state 0A is LISTEN.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from pod.util.finding import FATAL, WARNING, Finding
from pod.util.printable import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

PROC = Path("/proc")
_LISTEN = "0A"


def examine(
    args: Sequence[str],
    access: Mapping[str, Any],
    port: int,
    addresses: Sequence[str] = ("",),
    comfyui: int | None = None,
    program: tuple[str, str] = ("ComfyUI", "COMFYUI_PORT"),
) -> list[Finding]:
    """Return what is taken, where it is not by this pod: somebody may ask beside one that runs.

    Args:
        args: ComfyUI's arguments.
        access: The ways into the pod, as in decision.json.
        port: The port that people come to.
        addresses: What they come to, as `--listen` takes it; none where nobody does.
        comfyui: The process group of this pod's ComfyUI, if it runs.
        program: What is started in this pod, and the variable that says its port.
    """
    own = _value(args, "--port", "8188")
    wanted = [(int(own), program[0], FATAL, program[1])]
    if port != int(own) and addresses:
        title = "the login before ComfyUI" if access["login"] else "ComfyUI"
        wanted.append((port, title, FATAL, "COMFYUI_PORT"))
    for name, title, variable in (("ssh", "sshd", "SSH_PORT"), ("jupyter", "JupyterLab", "JUPYTER_PORT")):
        if access[name]:
            wanted.append((access[name]["port"], title, WARNING, variable))
    if comfyui is not None and taken(int(own)) and is_held_by(int(own), comfyui):
        return []  # this pod's own services are up
    found = [
        Finding(
            level,
            "port",
            f"port {number} is taken by {holder(number)}, and {title} is to listen there: set {variable}",
        )
        for number, title, level, variable in wanted
        if taken(number)
    ]
    if addresses and not usable(addresses):
        given = ",".join(addresses)
        says = f"this pod has no address {given!r}: leave --listen out of COMFYUI_ARGS, or give another one"
        found.append(Finding(FATAL, "address", says))
    return found


def taken(port: int) -> bool:
    """Tell whether somebody listens on a port, on whichever address, of IPv4 or IPv6."""
    return any(_refusal(every, port) == errno.EADDRINUSE for every in ("0.0.0.0", "::"))  # noqa: S104 - tried, not served


def usable(addresses: Iterable[str]) -> list[str]:
    """Return the addresses of this pod that values of `--listen` mean: IPv4 and IPv6, names looked up.

    An empty value means every address, as it does for ComfyUI. What this pod does not have is left out.
    """
    found: dict[str, None] = {}
    for name in addresses:
        try:
            known = socket.getaddrinfo(_host(name), None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            continue
        for *_, address in known:
            at = str(address[0])
            if "%" not in at and _refusal(at, 0) is None:
                found[at] = None
    return list(found)


def _host(name: str) -> str | bytes:
    """Return a value of `--listen` for a look-up; as bytes where it can be, since str costs 2 ms for IDNA."""
    name = name.strip() or "0.0.0.0"  # noqa: S104 - the same
    return name.encode() if name.isascii() else name


def _refusal(address: str, port: int) -> int | None:
    """Return the errno of a bind to the port, or None where it is free; the socket is closed at once."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((address, port))
    except OSError as error:
        return error.errno
    return None


def is_held_by(port: int, group: int) -> bool:
    """Tell whether a process of a group listens on a port, or no visible process does."""
    found = _holder(port)
    if found is None:
        return True
    try:
        return os.getpgid(int(found[0])) == group
    except OSError:  # it has ended
        return False


def holder(port: int) -> str:
    """Name the process that listens on a port, as far as it can be seen from here."""
    found = _holder(port)
    if found is None:
        return "another program"
    process, command = found
    return f"{shown(Path(command[0]).name, 40) or 'a program'} (process {process})"


def _holder(port: int) -> tuple[str, list[str]] | None:
    """Return process id and command line of the process that listens on a port."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(port)}
    if not sockets:
        return None
    for folder in PROC.glob("[0-9]*/fd"):
        try:
            if any(_target(link) in sockets for link in folder.iterdir()):
                command = (folder.parent / "cmdline").read_bytes().decode(errors="replace")
                return folder.parent.name, command.rstrip("\0").split("\0")
        except OSError:
            continue  # it has ended, or is not ours to look at
    return None


def _target(link: Path) -> str:
    try:
        return os.readlink(link)  # noqa: PTH115 - what it says is no path
    except OSError:
        return ""  # closed in the meantime


def _inodes(port: int) -> Iterator[str]:
    for name in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / name).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _value(args: Sequence[str], flag: str, default: str) -> str:
    return args[args.index(flag) + 1] if flag in args else default
