"""The login before ComfyUI: nginx, which alone listens outside."""

from __future__ import annotations

import pwd
import secrets
import subprocess
from dataclasses import dataclass

from pod.doors.service import BARE, Service, private_folder, write_private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from pod.doors.access import Login

_WORKER = "www-data"  # as in nginx.conf


@dataclass(frozen=True)
class Ports:
    """The port that people come to, and those of ComfyUI and of what answers `/ping`."""

    outer: int
    comfyui: int
    ping: int


def prepare(login: Login, root: Path, run: Path, ports: Ports) -> Service:
    """Write what nginx reads. Raises OSError, subprocess.SubprocessError.

    Args:
        login: Name and password.
        root: Where the image's nginx.conf lies.
        run: Where files of this boot go.
        ports: Who listens where.
    """
    # nginx's workers look the password up, and they run as nobody in particular.
    folder = private_folder(run / "login", mode=0o711)
    write_private(folder / "users", f"{login.user}:{hashed(login.password)}\n", pwd.getpwnam(_WORKER).pw_uid)
    words = {
        "folder": str(folder),
        "session": secrets.token_urlsafe(32),
        "port": str(ports.outer),
        "comfyui_port": str(ports.comfyui),
        "ping_port": str(ports.ping),
    }
    config = folder / "nginx.conf"
    write_private(config, fill((root / "access" / "nginx.conf").read_text(encoding="utf-8"), words))
    return Service(
        name="the login before ComfyUI",
        argv=("/usr/sbin/nginx", "-e", "stderr", "-c", str(config)),
        environ=BARE,
        port=ports.outer,
        setting="COMFYUI_PORT",
        welcome=f"ComfyUI asks for a login on port {ports.outer} (user {login.user}).",
    )


def fill(text: str, words: dict[str, str]) -> str:
    """Put values in the place of @names@."""
    for name, value in words.items():
        text = text.replace(f"@{name}@", value)
    return text


def hashed(password: str) -> str:
    """Return a password as crypt(3) hashes it, which nginx understands. It is on no command line.

    Raises OSError, subprocess.SubprocessError.
    """
    done = subprocess.run(
        ["/usr/bin/openssl", "passwd", "-6", "-stdin"],
        input=f"{password}\n",
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    return done.stdout.strip()
