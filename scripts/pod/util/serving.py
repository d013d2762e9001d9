"""What an image serves besides ComfyUI's page, or in its place: PODKILN_SERVE, by the variant's `serve`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "PODKILN_SERVE"
ENDPOINT = "RUNPOD_WEBHOOK_GET_JOB"  # what a worker of a RunPod endpoint's queue has
RUNPOD, HTTP, DIFFUSERS = "runpod", "http", "diffusers"
# Where the server of jobs listens unless PORT says otherwise: anywhere, and behind RunPod's load balancer.
PORT, BALANCED_PORT = 8000, 80
# Lines of the log that programs read: PyWorker of vast.ai decides by them. So they stay as they are.
READY, NOT_READY = "podkiln: ready for jobs", "podkiln: not ready for jobs"
STOPS = "so the pod stops"  # in the log's last sentence of a pod that ends by itself


def way(environ: Mapping[str, str]) -> str | None:
    """Return how jobs come, or None where none do."""
    return environ.get(VARIABLE) or None


def has_comfyui(environ: Mapping[str, str]) -> bool:
    """Tell whether start.sh starts ComfyUI; else it starts the server of a model in its place."""
    return way(environ) != DIFFUSERS
