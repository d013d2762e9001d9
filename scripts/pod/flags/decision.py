"""What was chosen for a pod, and its form in decision.json."""

from __future__ import annotations

from pod.util.dataclass import dataclass, replace
from pod.util.finding import WARNING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pod.flags.gpu_class import GpuClass
    from pod.flags.model_selection import Selection
    from pod.flags.node_selection import NodeSelection
    from pod.hardware.gpu import Detection
    from pod.hardware.memory import Memory
    from pod.services.config import Access
    from pod.util.finding import Finding
    from pod.volume.volume import Volume

SCHEMA = 2  # of decision.json; docs/reference/json.md lists what changed


@dataclass(frozen=True)
class Decision:
    """What ComfyUI is started with; reasons and warnings are sentences.

    People come to the door before ComfyUI: `port` is its port, and `listen` its addresses as `--listen` takes
    them; none where there is no door.
    """

    args: tuple[str, ...]
    port: int
    listen: tuple[str, ...]
    access: Access
    memory_mode: str | None
    profile: str
    card: GpuClass
    detection: Detection
    memory: Memory
    selection: Selection
    volume: Volume
    nodes: NodeSelection
    findings: tuple[Finding, ...] = ()
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def local(self) -> bool:
        """Whether only the pod itself can reach the door."""
        return all(each.startswith("127.") or each in ("::1", "localhost") for each in self.listen)

    def with_findings(self, more: Sequence[Finding]) -> Decision:
        """Return it with further findings; what is not fatal is warned about."""
        said = tuple(as_sentence(finding.message) for finding in more if finding.level == WARNING)
        return replace(self, findings=(*self.findings, *more), warnings=(*self.warnings, *said))

    def with_args(self, args: tuple[str, ...]) -> Decision:
        """Return it with other arguments for ComfyUI."""
        return replace(self, args=args)

    def to_json(self) -> dict[str, Any]:
        """Return decision.json."""
        return {
            "schema": SCHEMA,
            "gpu": _gpu_json(self.detection),
            "ram_mib": self.memory.total_mib,
            "ram": {"host_mib": self.memory.host_mib, "limit_mib": self.memory.limit_mib},
            "tier": self.card.tier,
            "vram_mib": self.card.vram_mib,
            "class_gb": self.card.gb,
            "profile": self.profile,
            "memory_mode": self.memory_mode,
            "port": self.port,
            "listen": list(self.listen),
            "access": self.access.to_json(),
            "serve": self.access.serve,
            "args": list(self.args),
            "reasons": list(self.reasons),
            "warnings": list(self.warnings),
            "findings": [finding.to_json() for finding in self.findings],
            "volume": self.volume.to_json(),
            "nodes": [choice.to_json() for choice in self.nodes.choices],
            "models": [choice.to_json() for choice in self.selection.choices],
            "requested_files": [wish.to_json() for wish in self.selection.wishes],
        }


def _gpu_json(detection: Detection) -> dict[str, Any] | None:
    gpu = detection.gpu
    if gpu is None:
        return None
    return {
        "index": gpu.index,
        "uuid": gpu.uuid,
        "name": gpu.name,
        "vram_mib": gpu.vram_mib,
        "visible": detection.visible,
        "slice": gpu.card is not None,
        "driver": gpu.driver,
        "compute_cap": gpu.compute_cap,
    }


def as_sentence(text: str) -> str:
    """Return a phrase with a capital letter and a full stop; what begins with a name keeps its letters."""
    whole = text if text.endswith((".", "?")) else f"{text}."
    return whole[0].upper() + whole[1:] if whole.split()[0].isalpha() else whole
