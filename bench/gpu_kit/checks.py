"""What a real card has to show, a function a promise. Standard library only: a rented machine has no pytest.

Each takes a pod, boots it as it needs it, and returns what it saw in a few words. A broken promise is a
FaultError of one sentence; NotHereError says that this machine cannot show it.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

COLD_START_SECONDS = 120.0
"""From start.sh to the first finished prompt of a small model: imports and CUDA's start are in it."""
SMALL = "flux-small"
LARGE = "sdxl"
CLASSES = ("sd15", "flux-small", "wan-small", "sdxl")
MODES = (
    "model_full_load",
    "model_full_load_and_qfloat8",
    "model_cpu_offload",
    "model_cpu_offload_and_qfloat8",
    "sequential_cpu_offload",
)
CLASSIC = "--disable-dynamic-vram"
DYNAMIC_IS_ON = "DynamicVRAM support detected and enabled"  # main.py of ComfyUI
LEFT_GIB = 0.4
_FEWEST_VALUES = 8  # of a picture's bytes; one that is black, or of one colour, has less


class FaultError(Exception):
    """A promise that the machine shows to be broken."""


class NotHereError(Exception):
    """What this machine cannot show."""


class Booted(Protocol):
    """A start.sh that runs, or has ended."""

    @property
    def stats(self) -> Mapping[str, Any] | None:
        """ComfyUI's first answer to /system_stats; None where it never came."""

    @property
    def decision(self) -> Mapping[str, Any]:
        """Return decision.json."""

    @property
    def exit_code(self) -> int | None:
        """Return start.sh's exit code; None while it runs."""

    @property
    def seconds(self) -> float:
        """Return how long ago it was started."""

    @property
    def comfyui_pid(self) -> int | None:
        """Return ComfyUI's process id."""

    def log(self) -> str:
        """Return all that was logged."""

    def prompt(self, workflow: str) -> tuple[str | None, Sequence[Path]]:
        """Run a workflow; returns what went wrong, as a line, and the pictures."""


class Pod(Protocol):
    """A machine on which start.sh can be started."""

    @property
    def classes(self) -> Sequence[str]:
        """Return the workflows whose models are there, one a class of models."""

    def boot(self, **environment: str) -> AbstractContextManager[Booted]:
        """Start it, wait until ComfyUI answers, and end it afterwards."""

    def held(self, free_gib: float) -> AbstractContextManager[object]:
        """Hold VRAM, so that so much stays free."""

    def cards(self) -> Sequence[Mapping[str, str]]:
        """Return the cards, by nvidia-smi's fields."""

    def slices(self) -> Sequence[str]:
        """Return the UUIDs of MIG slices."""


def cold_start(pod: Pod) -> str:
    """The first prompt is done within a limit after the start."""
    with pod.boot() as up:
        _ready(up)
        _picture(up, SMALL)
        if up.seconds > COLD_START_SECONDS:
            raise FaultError(
                f"the first prompt was done after {up.seconds:.0f} s, not {COLD_START_SECONDS:.0f}."
            )
        return f"{up.seconds:.1f} s to the first prompt"


def flags_accepted(pod: Pod) -> str:
    """ComfyUI runs with exactly what was decided, and its loader is the one that was meant."""
    seen = []
    for arguments in ("", CLASSIC, "--enable-dynamic-vram"):
        with pod.boot(COMFYUI_ARGS=arguments) as up:
            stats = _ready(up)
            args = list(up.decision["args"])
            argv = list(stats["system"]["argv"][1:])
            if argv != args:
                raise FaultError(f"ComfyUI runs with {' '.join(argv)}, and {' '.join(args)} was decided.")
            dynamic = CLASSIC not in args
            if (DYNAMIC_IS_ON in up.log()) is not dynamic:
                loader = "Dynamic VRAM" if dynamic else "the classic loader"
                raise FaultError(
                    f"{loader} was meant by {' '.join(args)}, and ComfyUI's log shows the other."
                )
            seen.append(f"{arguments or 'nothing'}: {'dynamic' if dynamic else 'classic'}")
    return ", ".join(seen)


def decision_right(pod: Pod) -> str:
    """decision.json has the card that nvidia-smi has, and finds nothing wrong with it."""
    cards = {card["uuid"]: card for card in pod.cards()}
    with pod.boot() as up:
        _ready(up)
        gpu = up.decision["gpu"] or {}
        card = cards.get(gpu.get("uuid", ""))
        if card is None and not gpu.get("slice"):
            raise FaultError(
                f"decision.json has the card {gpu.get('uuid')}, and nvidia-smi {', '.join(cards)}."
            )
        told = {
            "name": "name",
            "vram_mib": "memory.total",
            "driver": "driver_version",
            "compute_cap": "compute_cap",
        }
        for key, field in told.items():
            if card and str(gpu[key]) != card[field]:
                raise FaultError(f"decision.json has {key} {gpu[key]}, and nvidia-smi says {card[field]}.")
        if findings := up.decision["findings"]:
            raise FaultError(f"something is found wrong: {findings[0]['message']}.")
        return f"{gpu['name']}, {up.decision['class_gb']} GB class"


def model_classes(pod: Pod) -> str:
    """A prompt of each class of models makes a picture."""
    with pod.boot() as up:
        _ready(up)
        for workflow in pod.classes:
            _picture(up, workflow)
    return ", ".join(pod.classes)


def memory_modes(pod: Pod) -> str:
    """Each memory mode boots, is the one that was asked for, and makes a picture."""
    for mode in MODES:
        with pod.boot(GPU_MEMORY_MODE=mode) as up:
            _ready(up)
            if up.decision["memory_mode"] != mode:
                raise FaultError(f"GPU_MEMORY_MODE={mode} became {up.decision['memory_mode']}.")
            _picture(up, SMALL)
    return ", ".join(MODES)


def out_of_memory_survived(pod: Pod) -> str:
    """A prompt that runs out of VRAM fails alone: the same ComfyUI makes the next picture."""
    with pod.boot(COMFYUI_ARGS="--gpu-only") as up:
        _ready(up)
        _picture(up, SMALL)
        before = up.comfyui_pid
        with pod.held(LEFT_GIB):
            problem, _ = up.prompt(LARGE)
        if problem is None:
            raise FaultError(
                f"{LARGE} was made with {LEFT_GIB} GiB of VRAM left, so nothing ran out of memory."
            )
        if "memory" not in problem.lower() and "out of memory" not in up.log().lower():
            raise FaultError(f"{LARGE} failed for another reason than memory: {problem}")
        if up.exit_code is not None or up.comfyui_pid != before:
            raise FaultError("ComfyUI ended when it ran out of VRAM, and was started again at best.")
        _picture(up, SMALL)
    return "the prompt failed, the next one was done"


def several_cards(pod: Pod) -> str:
    """With several cards or MIG slices, the one that CUDA_VISIBLE_DEVICES names is decided for and used."""
    names = [*pod.slices()] or [card["uuid"] for card in pod.cards()]
    if len(names) < 2:
        raise NotHereError("there is one card, without MIG slices")
    for name in (names[0], names[-1]):
        with pod.boot(CUDA_VISIBLE_DEVICES=name) as up:
            _ready(up)
            if up.decision["gpu"]["uuid"] != name:
                raise FaultError(
                    f"CUDA_VISIBLE_DEVICES={name}, and decided was for {up.decision['gpu']['uuid']}."
                )
            if len((up.stats or {})["devices"]) != 1:
                raise FaultError(
                    f"CUDA_VISIBLE_DEVICES={name}, and ComfyUI sees another number of cards than 1."
                )
            _picture(up, SMALL)
    return f"{len(names)} of them"


CHECKS: dict[str, Callable[[Pod], str]] = {
    check.__name__: check
    for check in (
        cold_start,
        flags_accepted,
        decision_right,
        model_classes,
        out_of_memory_survived,
        several_cards,
        memory_modes,
    )
}
WITHOUT_A_CARD = ("cold_start", "model_classes")
"""What --cpu can rehearse."""


def _ready(up: Booted) -> Mapping[str, Any]:
    if up.stats is None:
        last = (up.log().strip().splitlines() or ["nothing"])[-1]
        how = "did not answer" if up.exit_code is None else f"ended with exit code {up.exit_code}"
        raise FaultError(f"ComfyUI {how}; the last line of its log: {last}")
    return up.stats


def _picture(up: Booted, workflow: str) -> None:
    problem, files = up.prompt(workflow)
    if problem is not None:
        raise FaultError(f"the prompt {workflow} failed: {problem}")
    if not files:
        raise FaultError(f"the prompt {workflow} made no picture.")
    if values_of(files[0].read_bytes()) < _FEWEST_VALUES:
        raise FaultError(
            f"the picture of {workflow} is of one colour, as from weights that became no numbers."
        )


def values_of(png: bytes) -> int:
    """Count the different bytes of a PNG's picture, still filtered (PNG specification, 5.3 and 11.2.3)."""
    at, packed = 8, b""
    while at + 8 <= len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        packed += png[at + 8 : at + 8 + size] if kind == b"IDAT" else b""
        at += 12 + size
    return len(set(zlib.decompress(packed))) if packed else 0
