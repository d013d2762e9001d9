"""The JSON of bench/gpu.py: read, merged with that of other runs, written, and shown as a table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

# What must be the same for two runs to be compared with each other.
SAME = ("gpu", "vram_mib", "driver", "comfyui", "torch", "comfy_aimdo")


def load(path: Path) -> dict[str, Any]:
    """Return the results so far, or empty ones. Raises ValueError where the file holds something else."""
    if not path.exists():
        return {"schema": 1, "machine": {}, "files": {}, "cases": {}}
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    parts = ("machine", "cases")
    if (
        not isinstance(results, dict)
        or results.get("schema") != 1
        or any(each not in results for each in parts)
    ):
        raise ValueError("it is no result of bench/gpu.py")
    results.setdefault("files", {})
    return results


def differs(one: dict[str, str], other: dict[str, str]) -> str | None:
    """Return how two machines differ, as a phrase; None where their figures may stand together."""
    for key in SAME:
        if one and other and one.get(key) != other.get(key):
            return f"{key} {one.get(key)} against {other.get(key)}"
    return None


def merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    """Add what other results have and these lack: a case that is there stays. Raises ValueError."""
    if difference := differs(into["machine"], other["machine"]):
        raise ValueError(f"it was measured elsewhere: {difference}")
    into["machine"] = into["machine"] or other["machine"]
    for part in ("files", "cases"):
        into[part] = {**other[part], **into[part]}


def save(path: Path, results: dict[str, Any]) -> None:
    """Write the results so that an interrupted run loses none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def table(results: dict[str, Any]) -> str:
    """Return the cases as a Markdown table."""
    lines = [
        "| case | first s | later s | it/s | VRAM MiB | RAM MiB | out of memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, result in results["cases"].items():
        first, *later = result.get("prompts_s") or ["-"]
        cells = [
            name,
            first,
            " ".join(map(str, later)) or "-",
            result.get("it_per_s", "-"),
            result.get("vram_peak_mib", "-"),
            result.get("ram_peak_mib") or "-",
            "yes" if result.get("out_of_memory") else "no",
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)
