"""What may be wrong with a pod: findings, the worst first."""

from __future__ import annotations

from pod.util.dataclass import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

FATAL, WARNING, NOTE = LEVELS = ("fatal", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One sentence about one thing; fatal is only what leaves ComfyUI no way to work."""

    level: str
    check: str
    message: str

    def to_json(self) -> dict[str, str]:
        """Return the entry of decision.json and doctor.json."""
        return {"level": self.level, "check": self.check, "message": self.message}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Finding:
        """Read what `to_json` made."""
        return cls(data["level"], data["check"], data["message"])


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sort by level; within a level the order stays, which is the order of the checks."""
    return sorted(dict.fromkeys(findings), key=lambda finding: LEVELS.index(finding.level))
