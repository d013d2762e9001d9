"""Which memory mode a model gets, from what it is estimated to need and what there is. Pure: no torch.

The estimates are those of server.detection.memory: rules, not measurements. What has once run out of memory
is remembered on the volume, and the next lower mode is taken there at the next start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pod.util import bounded_json, untrusted_files
from pod.util.files import write_json
from pod.util.units import human
from server.settings import AUTO, FP8, FULL, GROUP, MODES, SEQUENTIAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from server.detection.decision import Memory

_SPARE: Final = 512 << 20
"""Bytes of the card that are left to others: the driver's own, and what is in use by the time."""
_PINNED: Final = 0.5
"""Share of the pod's RAM that weights may have for them to be pinned; what is pinned cannot be given back."""
_LARGEST: Final = 1 << 20


@dataclass(frozen=True)
class Card:
    """A CUDA card: its name, free and total memory in bytes, and its compute capability."""

    name: str
    free: int
    total: int
    capability: tuple[int, int]


@dataclass(frozen=True)
class Chosen:
    """A mode, whether weights are kept in float8 as well, whether host memory may be pinned, and why."""

    mode: str
    float8: bool = False
    pinned: bool = False
    reasons: tuple[str, ...] = ()


def choose(
    asked: str,
    float8: bool,
    estimates: Sequence[Memory],
    card: Card | None,
    ram: int | None,
    *,
    times: float = 1.0,
    failed: str = "",
) -> Chosen:
    """Return the mode.

    Args:
        asked: What GPU_MEMORY_MODE says.
        float8: Whether it asks for weights in float8 beside that.
        estimates: What each mode is estimated to need; may be empty.
        card: The card; None for the CPU.
        ram: The pod's RAM in bytes; None where it could not be read.
        times: Bytes of a number, of two: 2.0 where it is computed in 32 bits.
        failed: A mode that has run out of memory here before; "" for none.
    """
    if card is None:
        said = () if asked == AUTO else (f"GPU_MEMORY_MODE={asked} is left out, for there is no CUDA card",)
        return Chosen(FULL, reasons=("there is no CUDA card, so the CPU computes", *said))
    needs = {each.mode: each for each in estimates}
    if asked != AUTO:
        return Chosen(
            asked, float8 or asked == FP8, _pins(needs, asked, ram), (f"{asked}: GPU_MEMORY_MODE says so",)
        )
    there = f"{human(card.free)} of {human(card.total)} are free on the {card.name}"
    if not needs:
        mode = lower(failed) if failed else FULL
        return Chosen(
            mode or SEQUENTIAL, mode == FP8, reasons=(f"{mode}: what the model needs is not known; {there}",)
        )
    reasons = []
    start = MODES.index(failed) + 1 if failed in MODES else 0
    if failed:
        reasons.append(f"{failed} has run out of memory here before")
    for mode in MODES[start:]:
        need = needs.get(mode)
        if need is None:
            continue
        vram = round(need.vram * times)
        if vram + _SPARE > card.free:
            reasons.append(f"{mode} needs about {human(vram)} on the card")
        elif ram is not None and need.ram * times > ram:
            reasons.append(
                f"{mode} needs about {human(need.ram * times)} of RAM, and the pod has {human(ram)}"
            )
        else:
            why = f"{mode}: it needs about {human(vram)} on the card, and {there}"
            return Chosen(mode, mode == FP8, _pins(needs, mode, ram), (*reasons, why))
    why = f"{SEQUENTIAL}: nothing fits by the estimates, so the least is tried; {there}"
    return Chosen(SEQUENTIAL, reasons=(*reasons, why))


def _pins(needs: Mapping[str, Memory], mode: str, ram: int | None) -> bool:
    """Whether weights on the host may be pinned, which streams of group offload need."""
    need = needs.get(mode)
    return bool(mode == GROUP and need and ram and need.ram < ram * _PINNED)


def lower(mode: str) -> str:
    """Return the next mode that needs less of the card; "" where there is none."""
    at = MODES.index(mode) + 1 if mode in MODES else len(MODES)
    return MODES[at] if at < len(MODES) else ""


def dtype(asked: str, card: Card | None, family: str) -> tuple[str, str]:
    """Return in which numbers to compute, as torch calls them, and why.

    bfloat16 from compute capability 8.0 on; else float16, but for families whose numbers leave its range; the
    CPU has no fast half. Source: diffusers' documentation of these models.
    """
    if card is None:
        if asked == "float16":
            return "float32", "the CPU does not compute in float16"
        return (asked, "DTYPE says so") if asked != AUTO else ("float32", "the CPU computes")
    if asked != AUTO:
        return asked, "DTYPE says so"
    if card.capability >= (8, 0):
        return "bfloat16", f"the {card.name} computes in it"
    if family in _NO_HALF:
        return "float32", f"the {card.name} has no bfloat16, and {family} does not go with float16"
    return "float16", f"the {card.name} has no bfloat16"


_NO_HALF: Final = frozenset(
    {"wan", "qwen-image", "qwen-image-21", "flux2", "z-image", "lumina2", "sana", "hunyuan-video", "chroma"}
)


# --- what ran out of memory before


def remember(path: Path, key: str, mode: str) -> None:
    """Note that a mode was not enough for a model on a card; a lower one stays. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = _read(path)
    before = known.get(key)
    lowest = max(mode, before, key=MODES.index) if before in MODES else mode
    write_json(path, {**known, key: lowest})


def remembered(path: Path, key: str) -> str:
    """Return the lowest mode that was not enough; "" for none."""
    found = _read(path).get(key)
    return found if found in MODES else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        found = bounded_json.parse(untrusted_files.read_plain(path, _LARGEST))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
