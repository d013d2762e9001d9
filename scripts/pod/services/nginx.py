"""The door before ComfyUI: nginx, which alone listens outside, with a login or without one.

It refuses what pages of other origins ask for, opens the page itself to a link from anywhere (ComfyUI alone
answers 403 to that), and asks for a name and a password where there are some. What it does is written in
access/nginx.conf; here the words in it are filled in.
"""

from __future__ import annotations

import base64
import hashlib
import os
import pwd
import re
import resource
import secrets
from pathlib import Path

from pod.comfyui_http import value
from pod.services.config import read_cors
from pod.services.ping_config import PATH
from pod.services.service import BARE, Service, private_folder, write_private
from pod.util.dataclass import dataclass
from pod.util.ports import usable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pod.services.config import Login

_WORKER = "www-data"
_STATUS = Path("/proc/self/status")  # proc_pid_status(5)
_SET_IDS = 1 << 6 | 1 << 7  # CAP_SETGID and CAP_SETUID, capabilities(7)
# Connections of each of the two workers; one takes a file, one that goes on to ComfyUI two.
_CONNECTIONS = 16384


@dataclass(frozen=True)
class Ports:
    """The port that people come to, and those of ComfyUI and of what answers `/ping`.

    `addresses` are those to listen on, as `--listen` takes them; `health_path` is what a load balancer asks
    for on the port that people come to.
    """

    outer: int
    comfyui: int
    ping: int
    addresses: tuple[str, ...] = ("0.0.0.0",)  # noqa: S104 - it is the door
    health_path: str = PATH


def prepare(login: Login | None, root: Path, run: Path, ports: Ports, args: Sequence[str] = ()) -> Service:
    """Write what nginx reads. Raises OSError, LookupError.

    Args:
        login: Name and password; None to let everybody in.
        root: Where the image's nginx.conf lies.
        run: Where files of this boot go.
        ports: The ports of nginx and of ComfyUI.
        args: ComfyUI's arguments.
    """
    # nginx's workers read below it, and they run as an unprivileged user.
    folder = private_folder(run / "login", mode=0o711)
    worker = _worker()
    changes = os.geteuid() == 0 and worker == _WORKER
    write_private(folder / "users", "", pwd.getpwnam(_WORKER).pw_uid if changes else None)
    files = _files()
    words = {
        "folder": str(folder),
        "worker": f"user {worker};" if os.geteuid() == 0 else "",  # nginx would warn
        "files": str(files),
        "connections": str(min(_CONNECTIONS, files // 2)),
        "comfyui_port": str(ports.comfyui),
        "ping_port": str(ports.ping),
        "health_path": _health_path(ports.health_path),
        **_known(login),
        **_origins(args),
        **_listen(ports, args, folder),
    }
    config = folder / "nginx.conf"
    write_private(config, fill((root / "access" / "nginx.conf").read_text(encoding="utf-8"), words))
    return Service(
        name="the login before ComfyUI" if login else "the door before ComfyUI",
        argv=("/usr/sbin/nginx", "-e", "stderr", "-c", str(config)),
        environ=BARE,
        port=ports.outer,
        setting="COMFYUI_PORT",
        welcome=(
            f"ComfyUI asks for a login on port {ports.outer} (user {login.user})."
            if login
            else f"ComfyUI can be reached on port {ports.outer}."
        ),
        needed=True,
    )


def fill(text: str, words: dict[str, str]) -> str:
    """Put values in the place of @names@."""
    return re.sub(r"@([a-z_]+)@", lambda found: words[found[1]], text)


def _known(login: Login | None) -> dict[str, str]:
    """Return the map entry for the Authorization header of name and password (Basic, RFC 7617)."""
    # Of this pod alone: cookies know no ports, so pods at one address would take each other's for their own.
    pod = hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:12]
    words = {
        "session": secrets.token_urlsafe(32),
        "brake_cookie": f"podkiln-{pod}",
        "brake": secrets.token_urlsafe(32),
    }
    if login is None:
        return {**words, "login": "no", "password_default": "yes", "password_right": ""}
    pair = base64.b64encode(f"{login.user}:{login.password}".encode()).decode().replace("+", "[+]")
    right = f'"~^(?i:basic) +{pair}$" yes;'
    return {**words, "login": "yes", "password_default": "no", "password_right": right}


def _origins(args: Sequence[str]) -> dict[str, str]:
    """Return which other origins are let in."""
    cors = read_cors(args)
    allowed = "yes" if cors == "*" else "no"
    named = f'"~*^{re.escape(cors)}$" yes;' if cors and cors != "*" else ""
    policy = "cross-origin" if cors else "same-origin"
    return {"cors_default": allowed, "cors_origin": named, "resource_policy": policy}


def _listen(ports: Ports, args: Sequence[str], folder: Path) -> dict[str, str]:
    """Return where to listen, and how. A certificate is copied: nginx might misread its name."""
    given = list(args)
    names = {"crt": value("--tls-certfile", given), "key": value("--tls-keyfile", given)}
    tls = all(names.values())
    for kind, name in names.items():
        if tls and name:
            write_private(folder / f"tls.{kind}", Path("/opt/ComfyUI", name).read_bytes())
    addresses = [f"[{each}]" if ":" in each else each for each in usable(ports.addresses)]
    kind = " ssl" if tls else ""
    return {
        "listen": " ".join(f"listen {each}:{ports.outer} backlog=4096{kind};" for each in addresses),
        "tls": f"ssl_certificate {folder}/tls.crt; ssl_certificate_key {folder}/tls.key;" if tls else "",
        "comfyui_scheme": "https" if tls else "http",
    }


def _health_path(path: str) -> str:
    """Return the location of another path than `/ping`; `/` is ComfyUI's own."""
    return "" if path in (PATH, "/") else f"location = {path} {{ rewrite ^ {PATH} last; }}"


def _worker() -> str:
    """Return the user of nginx's workers: an unprivileged one, unless this pod may not change users."""
    status = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="utf-8").splitlines())
    if os.geteuid() != 0:
        return _WORKER  # nginx does not look it up then; the current user may not be in /etc/passwd
    able = int(status["CapEff"], 16) & _SET_IDS == _SET_IDS
    return _WORKER if able else pwd.getpwuid(0).pw_name


def _files() -> int:
    """Return how many files a worker may have open: what connections need, as far as the pod allows it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * _CONNECTIONS
    return wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
