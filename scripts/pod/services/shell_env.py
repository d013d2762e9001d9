"""The pod's variables for shells that are not its children: those of ssh, vast.ai's own included.

root's .bashrc reads the file. Tokens stand in it, so it is root's alone, as /etc/environment is not.
"""

from __future__ import annotations

import shlex

from pod.services.service import write_private
from pod.util.secret_variables import ACCESS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAME = "environment.sh"

# What belongs to a shell itself.
_OWN = frozenset(
    {
        "_",
        "HOME",
        "HOSTNAME",
        "LOGNAME",
        "MAIL",
        "OLDPWD",
        "PWD",
        "SHELL",
        "SHLVL",
        "TERM",
        "USER",
        "PUBLIC_KEY",
        "SSH_PUBLIC_KEY",
    }
)


def write(run: Path, environ: Mapping[str, str]) -> None:
    """Write the file. Raises OSError."""
    write_private(run / NAME, script(environ))


def script(environ: Mapping[str, str]) -> str:
    """Return shell code that sets what is not set yet, and PATH, which a login shell has set by itself."""
    lines = ["# The pod's variables, for shells that sshd starts. Written at each start of the pod."]
    for name, value in sorted(environ.items()):
        if name in _OWN or name in ACCESS or not name.isidentifier() or not name.isascii():
            continue
        export = f"export {name}={shlex.quote(value)}"
        lines.append(export if name == "PATH" else f'[ -n "${{{name}+x}}" ] || {export}')
    return "\n".join(lines) + "\n"
