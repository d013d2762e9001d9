"""sshd: login by key only, with a host key that is kept on the volume."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
from pathlib import Path

from pod.services.service import BARE, Service, private_folder, write_private
from pod.util import untrusted_files
from pod.util.say import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pod.services.config import Ssh

_KEY = "ssh_host_ed25519_key"
_SECONDS = 10.0
_OTHERS = 0o077
# Where sshd locks its unprivileged half in: a compiled-in path that Debian's own service makes at each start.
_EMPTY = Path("/run/sshd")


def prepare(ssh: Ssh, root: Path, run: Path, workspace: Path) -> Service:
    """Write what sshd reads. Raises OSError, subprocess.SubprocessError.

    Args:
        ssh: Port and keys.
        root: Where the image's sshd_config lies.
        run: Where files of this boot go.
        workspace: The volume, which keeps the host key.
    """
    folder = private_folder(run / "ssh")
    authorized = folder / "authorized_keys"
    write_private(authorized, "".join(f"{key}\n" for key in ssh.keys))
    _EMPTY.mkdir(mode=0o755, parents=True, exist_ok=True)
    key, print_ = host_key(workspace / ".podkiln" / "ssh", folder)
    options = ("-f", f"{root}/access/sshd_config", "-p", str(ssh.port), "-h", str(key))
    many = "one key" if len(ssh.keys) == 1 else f"{len(ssh.keys)} keys"
    return Service(
        name="sshd",
        argv=("/usr/sbin/sshd", "-D", "-e", *options, "-o", f"AuthorizedKeysFile={authorized}"),
        environ=BARE,
        port=ssh.port,
        setting="SSH_PORT",
        welcome=f"sshd takes {many} on port {ssh.port}; its own fingerprint is {print_}.",
    )


def host_key(kept: Path, own: Path) -> tuple[Path, str]:
    """Return a host key and its fingerprint: the volume's, or one for this boot where that cannot keep one.

    Args:
        kept: The folder on the volume.
        own: The folder in the container.
    """
    try:
        private_folder(kept)
        key = kept / _KEY
        print_ = fingerprint(key) or _make(key)
        if closed(key):
            return key, print_
        key.unlink()
        why = "cannot keep a file private"
    except (OSError, subprocess.SubprocessError):
        why = "cannot be written"
    say(f"{kept} {why}, so sshd's host key lasts as long as this container, and clients will ask again.")
    key = own / _KEY
    return key, fingerprint(key) or _make(key)


def fingerprint(key: Path) -> str | None:
    """Return a private key's fingerprint as ssh shows it; None where it is not a key. Raises OSError."""
    if untrusted_files.kind(key) or not key.exists():
        return None
    if not closed(key):
        untrusted_files.set_mode(key, 0o600)
    public = _keygen("-y", "-P", "", "-f", str(key), check=False).split()
    if len(public) < 2:  # noqa: PLR2004 - type and key
        return None
    digest = hashlib.sha256(base64.b64decode(public[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def closed(key: Path) -> bool:
    """Tell whether only its owner may read a file, as sshd requires. Raises OSError."""
    return not key.stat().st_mode & _OTHERS


def _make(key: Path) -> str:
    """Make a key aside and give it its name; where another pod on the volume was quicker, use that one's."""
    damaged = key.exists()
    aside = key.with_name(f".{key.name}.{os.uname().nodename}.{os.getpid()}")
    try:
        _keygen("-q", "-t", "ed25519", "-N", "", "-C", "podkiln", "-f", str(aside))
        if damaged:
            aside.replace(key)
        else:
            _publish(aside, key)
    finally:
        aside.unlink(missing_ok=True)
        aside.with_name(f"{aside.name}.pub").unlink(missing_ok=True)
    made = fingerprint(key)
    if made is None:
        raise OSError(f"{key} is not what was written")
    return made


def _publish(aside: Path, key: Path) -> None:
    try:
        os.link(aside, key)
    except FileExistsError:
        return
    except OSError:  # a file system without links
        aside.replace(key)


def _keygen(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(
        ["/usr/bin/ssh-keygen", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=check,
    )
    return done.stdout if done.returncode == 0 else ""
