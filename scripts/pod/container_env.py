"""The pod's environment for commands that people start: a login (sshd, vast.ai's) has none of it.

What the container was started with stands in the environment of its first process, which root may read, so
nothing has to be written down for that, and secrets least of all. What `decide` found out, such as where the
volume really is, it wrote into the run folder.
"""

from __future__ import annotations

from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping

FIRST_PROCESS = Path("/proc/1/environ")
DECIDED = "comfyui.env"  # as pod.volume.run_files writes it: NAME=value, each followed by a NUL byte
_SIGN = "WORKSPACE"  # set in the image: a process that has it has all the others
_NAMES = frozenset(
    {
        *("WORKSPACE", "MODELS", "LORAS", "FETCH_JOBS", "FETCH_CONNECTIONS", "FETCH_STAGING"),
        *("HF_TOKEN", "HF_ENDPOINT", "CIVITAI_TOKEN", "CIVITAI_ENDPOINT", "COMFYUI_PORT", "SSL_CERT_FILE"),
        *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),  # pod.net.proxies reads these
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    }
)
_PREFIX = "PODKILN_"


def adopt(environ: MutableMapping[str, str], first: Path = FIRST_PROCESS) -> None:
    """Add the pod's variables that this environment lacks; variables that are set there stay."""
    started_with = _read(first)
    if _SIGN not in environ:
        for name, value in started_with.items():
            if name in _NAMES or name.startswith(_PREFIX):
                environ.setdefault(name, value)
    for name, value in _read(Path(environ.get("PODKILN_RUN", "/run/podkiln")) / DECIDED).items():
        if environ.get(name) in {None, started_with.get(name)}:
            environ[name] = value


def _read(path: Path) -> dict[str, str]:
    """Read NAME=value pairs; empty where the file is missing or may not be read."""
    try:
        pairs = path.read_bytes().decode(errors="surrogateescape").split("\0")
    except OSError:
        return {}
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs) if name}
