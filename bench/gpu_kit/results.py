"""The JSON of bench/gpu.py: read, merged with that of other runs, written, and shown as a table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# What must be the same for two runs to be compared with each other.
SAME = ("gpu", "vram_mib", "driver", "comfyui", "torch", "comfy_aimdo")
_SAID = ("gpu", "comfyui", "torch")  # what no figure may stand without
_MOST = 1e12  # of seconds, MiB, or iterations a second
_NUMBERS = ("ready_s", "it_per_s", "vram_peak_mib", "ram_peak_mib")  # or null, where that was not measured


def load(path: Path) -> dict[str, Any]:
    """Return the results so far, or empty ones. Raises ValueError where the file holds something else."""
    if path.exists() and not path.is_file():  # a FIFO would be waited for
        raise ValueError("it is no file")
    try:
        results = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except FileNotFoundError:
        return {"schema": 1, "machine": {}, "files": {}, "cases": {}}
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON ({error})") from None
    if isinstance(results, dict):
        results.setdefault("files", {})
    if problem := _problem(results):
        raise ValueError(f"it is no result of bench/gpu.py: {problem}")
    found: dict[str, Any] = results
    return found


def _no_constant(name: str) -> None:
    """Refuse what Python takes and JSON has not (RFC 8259, section 6). Raises ValueError."""
    raise ValueError(f"{name} is no number in it")


def measured(result: Mapping[str, Any] | None) -> bool:
    """Whether a case was measured: all its prompts were done, or it ran out of memory, which says as much.

    What did not boot, or failed for another reason, says nothing about flags: it is run again.
    """
    if not result or "exit" in result:
        return False
    if "failed" in result:
        return ran_out(result)
    return bool(result.get("prompts_s"))


def ran_out(result: Mapping[str, Any]) -> bool:
    """Whether a prompt failed for want of memory, and not only ComfyUI met that and went on."""
    return "memory" in " ".join(result.get("failed", ())).lower()


def _problem(results: Any) -> str | None:
    """Return what is wrong with results, as a phrase."""
    if not isinstance(results, dict) or results.get("schema") != 1 or isinstance(results["schema"], bool):
        return "its schema is not 1"
    for part in ("machine", "files", "cases"):
        if not isinstance(results.get(part), dict):
            return f"it has no {part}"
    for name, value in results["machine"].items():
        if not isinstance(value, str):
            return f"the machine's {name} is no text"
    for name, value in results["files"].items():
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            return f"the bytes of {name} are no number above 0"
    if results["cases"] and (lacks := [name for name in _SAID if not results["machine"].get(name)]):
        return f"it has cases, and not which {lacks[0]} they were measured with"
    wrong = (_problem_of(name, result) for name, result in results["cases"].items())
    return next(filter(None, wrong), None)


def _problem_of(name: str, result: Any) -> str | None:
    if not name.isprintable():
        return f"the name of the case {name!a} has characters that are not shown"
    if not isinstance(result, dict):
        return f"the case {name!r} is no object"
    seconds, failed = result.get("prompts_s", []), result.get("failed", [])
    found = [
        f"{key} of the case {name!r} is no number"
        for key in _NUMBERS
        if result.get(key) is not None and not _is_number(result[key])
    ]
    if not isinstance(seconds, list) or not all(map(_is_number, seconds)):
        found.append(f"prompts_s of the case {name!r} are no numbers")
    if not isinstance(failed, list) or not all(isinstance(line, str) for line in failed):
        found.append(f"what the case {name!r} failed with is no text")
    if not isinstance(result.get("out_of_memory", False), bool):
        found.append(f"out_of_memory of the case {name!r} is neither true nor false")
    if not seconds and not {"exit", "failed"} & {*result}:
        found.append(f"the case {name!r} has neither prompts nor how it failed")
    return next(iter(found), None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _MOST


def differs(one: Mapping[str, str], other: Mapping[str, str]) -> str | None:
    """Return how two machines differ, as a phrase; None where their figures may stand together."""
    for key in SAME:
        if one and other and one.get(key) != other.get(key):
            return f"{key} {one.get(key)} against {other.get(key)}"
    return None


def merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    """Add what other results have and these lack; a case that was measured stays. Raises ValueError."""
    if difference := differs(into["machine"], other["machine"]):
        raise ValueError(f"it was measured elsewhere: {difference}")
    for name, size in other["files"].items():
        if into["files"].get(name, size) != size:
            raise ValueError(f"the files of {name} have {into['files'][name]} bytes against {size}")
    into["machine"] = into["machine"] or other["machine"]
    into["files"] = {**other["files"], **into["files"]}
    for name, result in other["cases"].items():
        if name not in into["cases"] or (measured(result) and not measured(into["cases"][name])):
            into["cases"][name] = result


def save(path: Path, results: Mapping[str, Any]) -> None:
    """Write the results so that an interrupted run loses none. Raises ValueError for what `load` refuses."""
    if "cases" in results and (problem := _problem(results)):
        raise ValueError(f"this is no result of bench/gpu.py: {problem}")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)


def table(results: Mapping[str, Any]) -> str:
    """Return the cases as a Markdown table."""
    lines = [
        "| case | first s | later s | it/s | VRAM MiB | RAM MiB | out of memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, result in results["cases"].items():
        first, *later = result.get("prompts_s") or ["-"]
        cells = [
            name if measured(result) else f"{name}: not measured, {_failure(result)}",
            first,
            " ".join(map(str, later)) or "-",
            result.get("it_per_s") or "-",
            result.get("vram_peak_mib") or "-",
            result.get("ram_peak_mib") or "-",
            "yes" if result.get("out_of_memory") or ran_out(result) else "no",
        ]
        lines.append("| " + " | ".join(_shown(str(cell)) for cell in cells) + " |")
    return "\n".join(lines)


def _shown(cell: str) -> str:
    """Return a text as a cell has it: what a terminal would obey is not in it."""
    return "".join(each if each.isprintable() else "?" for each in cell).replace("|", "/")


def _failure(result: Mapping[str, Any]) -> str:
    if "exit" in result:
        ended = result["exit"]
        return "it did not answer in time" if ended is None else f"it ended with exit code {ended}"
    return " ".join(result.get("failed") or ["it failed"])
