"""How jobs come to an image that takes some: PODKILN_SERVE, set in the image by the variant's `serve`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "PODKILN_SERVE"
RUNPOD, HTTP = "runpod", "http"
# Where the server of jobs listens unless PORT says otherwise: anywhere, and behind RunPod's load balancer.
PORT, BALANCED_PORT = 8000, 80


def way(environ: Mapping[str, str]) -> str | None:
    """Return how jobs come, or None where none do."""
    return environ.get(VARIABLE) or None
