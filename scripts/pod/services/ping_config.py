"""Where /ping is asked for: HEALTH_CHECK_PATH, PORT_HEALTH and PORT, as RunPod's load balancer sets them.

Source: docs.runpod.io/serverless/load-balancing
"""

from __future__ import annotations

import re
from types import MappingProxyType

from pod.services.config import LOCAL_PORT
from pod.util import serving
from pod.util.dataclass import dataclass
from pod.util.env import SettingError, port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PATH = "/ping"
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._/-]*")
# First parts of ComfyUI's own addresses (server.py, app/ and api_server/ of 0.33.0, and its page's files).
_COMFYUIS = frozenset(
    (
        "api",
        "assets",
        "embeddings",
        "experiment",
        "extensions",
        "features",
        "free",
        "global_subgraphs",
        "history",
        "i18n",
        "index.html",
        "internal",
        "interrupt",
        "models",
        "node_replacements",
        "object_info",
        "prompt",
        "queue",
        "settings",
        "system_stats",
        "upload",
        "userdata",
        "users",
        "v2",
        "view",
        "view_metadata",
        "workflow_templates",
        "ws",
    )
)
_EVERY = ("0.0.0.0", "::")  # noqa: S104 - the load balancer comes from outside


@dataclass(frozen=True)
class PingConfig:
    """Where `/ping` is asked for: addresses, the path, and whether that is asked for at ComfyUI's port.

    `of_worker`: the port at which the server of jobs answers it, beside its own; 0 for none.
    """

    addresses: tuple[tuple[str, int], ...] = ()
    path: str = PATH
    at_the_door: bool = False
    of_worker: int = 0


def port_of_server(environ: Mapping[str, str]) -> int:
    """Return the port that the server of jobs, or of a model, listens on. Raises SettingError."""
    usual = serving.BALANCED_PORT if environ.get("RUNPOD_ENDPOINT_ID") else serving.PORT
    return port("PORT", environ.get("PORT"), usual)


def read(
    environ: Mapping[str, str], comfyui: int, others: Mapping[str, int] = MappingProxyType({})
) -> PingConfig:
    """Return what the environment asks for. Raises SettingError.

    Args:
        environ: The pod's environment.
        comfyui: The port that people come to, where the door answers.
        others: What else listens, by name; a port of theirs is refused.
    """
    balanced = bool(environ.get("RUNPOD_ENDPOINT_ID"))
    # These know of the warm-up, and that they are being stopped.
    by_worker = serving.way(environ) in (serving.HTTP, serving.DIFFUSERS)
    if by_worker:
        own = port_of_server(environ)
        asked = port("PORT_HEALTH", environ.get("PORT_HEALTH"), own)
        asked = 0 if asked == own else asked
    else:
        own = port("PORT", environ.get("PORT"), 0) if balanced else 0
        asked = port("PORT_HEALTH", environ.get("PORT_HEALTH"), own)
    path = environ.get("HEALTH_CHECK_PATH", "").strip() or PATH
    if not _PLAIN_PATH.fullmatch(path):
        raise SettingError(
            f"HEALTH_CHECK_PATH={path!r} is not a plain path: give one such as {PATH}, "
            "of letters, digits, ._-/."
        )
    steps = path[1:].split("/")
    if "" in steps[:-1] or {".", ".."} & {*steps}:
        raise SettingError(
            f"HEALTH_CHECK_PATH={path!r} is never requested as it is written: give one such as {PATH}, "
            "without // and /../."
        )
    if asked == comfyui and steps[0] in _COMFYUIS:
        raise SettingError(
            f"HEALTH_CHECK_PATH={path!r} is an address of ComfyUI's own on port {asked}: give another one, "
            f"such as {PATH}, or another PORT_HEALTH."
        )
    addresses = [("127.0.0.1", LOCAL_PORT)]
    if asked and asked != comfyui:
        if other := next((name for name, taken in others.items() if taken == asked), None):
            name = "PORT_HEALTH" if environ.get("PORT_HEALTH", "").strip() else "PORT"
            raise SettingError(f"{name} and {other} are both {asked}: give one of them another port.")
        addresses = [each for each in addresses if each[1] != asked]
        addresses += [] if by_worker else [(every, asked) for every in _EVERY]
    of_worker = asked if by_worker and asked != comfyui else 0
    return PingConfig(tuple(addresses), path, at_the_door=asked == comfyui, of_worker=of_worker)
