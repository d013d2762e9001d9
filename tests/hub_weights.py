"""Weights for tests: described as a plan would, served by the local hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pod.net.http import Limits
from pod.net.hubs import Hubs
from pod.net.transfer_policy import TransferPolicy
from podkiln.plan.weight_layers import WeightFile
from podkiln.weights.source import SourceClient

if TYPE_CHECKING:
    from servers.hub import Hub
    from servers.hub_content import HubFile

FAST = TransferPolicy(tries=5, backoff=0.01, backoff_limit=0.05, limits=Limits(connect=2.0, read=1.0))


def access(hub: Hub, **tokens: str) -> SourceClient:
    """Return how to speak to the local hub: it stands for both, and failures pass quickly."""
    return SourceClient(Hubs(huggingface=hub.url, civitai=hub.url, **tokens), FAST)


def weight(file: HubFile, *, model: str = "m", name: str = "", **changes: Any) -> WeightFile:
    """Describe a file of the hub's repository org/repo; `changes` are what is told wrongly or otherwise."""
    facts: dict[str, Any] = {
        "model": model,
        "destination": name or f"checkpoints/{file.name}",
        "size": file.size,
        "sha256": file.sha256,
        "source": f"huggingface:org/repo/{file.path}",
        "revision": None,
        "origin": {"kind": "huggingface", "repo": "org/repo", "revision": None, "path": file.path},
    }
    return WeightFile(**{**facts, **changes})
