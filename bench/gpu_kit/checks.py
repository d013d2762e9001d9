"""What a real card has to show, a function a promise. Standard library only: a rented machine has no pytest.

Each takes a pod, boots it as it needs it, and returns what it saw in a few words. A broken promise is a
FaultError of one sentence; NotHereError says that this machine cannot show it.
"""

from __future__ import annotations

import re
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
CLASSES = (
    *("sd15", "flux-small", "wan-small", "flux2-small", "qwen-small", "hunyuan-small", "svd"),
    "sdxl",
)
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
MODEL = "sdxl-base"
LITTLE_GIB = 4.0
"""What no full-size model's working set is within."""
_WORKING_SET = re.compile(
    r"takes about (\d+) MiB, (?:within|more than) (\d+) % of the (\d+) MiB that are free"
)
_STIR_MIB = 512  # by which what is free may change from one question to the next
_SEED = 7
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

    def prompt(self, workflow: str, seed: int) -> tuple[str | None, Sequence[Path]]:
        """Run a workflow; returns what went wrong, as a line, and the pictures.

        With a seed that this ComfyUI has had, it answers from its cache and computes nothing.
        """


class Pod(Protocol):
    """A machine on which start.sh can be started."""

    @property
    def classes(self) -> Sequence[str]:
        """Return the workflows whose models are there, one a class of models."""

    def boot(self, **environment: str) -> AbstractContextManager[Booted]:
        """Start it, wait until ComfyUI answers, and end it afterwards."""

    def explain(self, **environment: str) -> Mapping[str, Any]:
        """Return what start.sh would decide; nothing is started or fetched."""

    def free_mib(self) -> int | None:
        """Return the VRAM that nobody holds, as nvidia-smi tells it; None where it does not."""

    def held(self, free_gib: float | None) -> AbstractContextManager[object]:
        """Hold VRAM, so that so much stays free; None holds nothing."""

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
            args = _as_decided(up)
            dynamic = CLASSIC not in args
            if arguments and arguments not in args:
                raise FaultError(f"{arguments} was asked for, and decided was {' '.join(args)}.")
            if (DYNAMIC_IS_ON in up.log()) is not dynamic:
                loader = "Dynamic VRAM" if dynamic else "the classic loader"
                raise FaultError(
                    f"{loader} was meant by {' '.join(args)}, and ComfyUI's log shows the other."
                )
            seen.append(f"{arguments or 'nothing'}: {'dynamic' if dynamic else 'classic'}")
    return ", ".join(seen)


def decision_right(pod: Pod) -> str:
    """decision.json has the card, or the MIG slice, that nvidia-smi has, and finds nothing wrong with it."""
    cards = {card["uuid"]: card for card in pod.cards()}
    with pod.boot() as up:
        _ready(up)
        gpu = up.decision["gpu"] or {}
        uuid = gpu.get("uuid", "")
        known = [*pod.slices()] if gpu.get("slice") else [*cards]
        if uuid not in known:
            raise FaultError(f"decision.json has the card {uuid or None}, and nvidia-smi {', '.join(known)}.")
        _same_card(gpu, _whole(gpu, cards))
        if findings := up.decision["findings"]:
            raise FaultError(f"something is found wrong: {findings[0]['message']}.")
        return f"{gpu['name']}, {up.decision['class_gb']} GB class"


def _whole(gpu: Mapping[str, Any], cards: Mapping[str, Mapping[str, str]]) -> Mapping[str, str]:
    """Return the card that is decided for, or of which a slice is."""
    if not gpu.get("slice"):
        return cards[gpu["uuid"]]
    of = [card for card in cards.values() if str(gpu["name"]).startswith(f"{card['name']} MIG ")]
    if not of:
        raise FaultError(f"decision.json has a slice named {gpu['name']}, and nvidia-smi no such card.")
    return of[0]


def _same_card(gpu: Mapping[str, Any], card: Mapping[str, str]) -> None:
    told = {"driver": "driver_version", "compute_cap": "compute_cap"}
    if gpu.get("slice"):
        whole = card["memory.total"]
        if not gpu["vram_mib"] or (whole.isdecimal() and gpu["vram_mib"] >= int(whole)):
            raise FaultError(f"decision.json has vram_mib {gpu['vram_mib']} for a slice of {whole} MiB.")
    else:
        told = {"name": "name", "vram_mib": "memory.total", **told}
    for key, field in told.items():
        if str(gpu[key]) != card[field]:
            raise FaultError(f"decision.json has {key} {gpu[key]}, and nvidia-smi says {card[field]}.")


def enabled_model(pod: Pod) -> str:
    """With a model enabled the loader follows from its size and from what is free on this card."""
    if MODEL not in [model["id"] for model in pod.explain(MODELS="none")["models"]]:
        raise NotHereError(f"this image does not offer {MODEL}")
    seen = []
    for room in (None, LITTLE_GIB):
        with pod.held(room):
            free = pod.free_mib()
            decision = pod.explain(MODELS=MODEL)
        said = " ".join(each for each in decision["reasons"] if MODEL in each and "Profile " in each)
        found = _WORKING_SET.search(said)
        classic = CLASSIC in decision["args"]
        if found is None and "which would fit, but" not in said:
            raise FaultError(
                f"{MODEL} is enabled, and its size is not what the choice is said to be by: {said}"
            )
        if found is None:
            fits = False  # on so small a card the classic loader was not measured to be the faster one
        else:
            takes, share, counted = map(int, found.groups())
            if free is not None and abs(counted - free) > _STIR_MIB:
                raise FaultError(f"{counted} MiB are counted as free, and nvidia-smi says {free}.")
            fits = takes <= counted * share / 100
        if classic is not fits:
            loader = "the classic loader" if classic else "Dynamic VRAM"
            raise FaultError(f"{loader} was chosen with {free} MiB free: {said}")
        seen.append(f"{free} MiB free: {'classic' if classic else 'dynamic'}")
    return ", ".join(seen)


def model_classes(pod: Pod) -> str:
    """A prompt of each class of models makes a picture."""
    with pod.boot() as up:
        _ready(up)
        for workflow in pod.classes:
            _picture(up, workflow)
    return ", ".join(pod.classes)


def memory_modes(pod: Pod) -> str:
    """Each memory mode boots, is the one that was asked for, reaches ComfyUI, and makes a picture."""
    for mode in MODES:
        with pod.boot(GPU_MEMORY_MODE=mode) as up:
            _as_decided(up)
            if up.decision["memory_mode"] != mode:
                raise FaultError(f"GPU_MEMORY_MODE={mode} became {up.decision['memory_mode']}.")
            _picture(up, SMALL)
    return ", ".join(MODES)


def out_of_memory_survived(pod: Pod) -> str:
    """A prompt that runs out of VRAM fails alone: the same ComfyUI makes the next picture."""
    with pod.boot(COMFYUI_ARGS="--gpu-only") as up:
        _ready(up)
        _picture(up, SMALL)
        before, log = up.comfyui_pid, len(up.log())
        with pod.held(LEFT_GIB):
            problem, _ = up.prompt(LARGE, _SEED)
        if problem is None:
            raise FaultError(
                f"{LARGE} was made with {LEFT_GIB} GiB of VRAM left, so nothing ran out of memory."
            )
        if "memory" not in problem.lower() and "out of memory" not in up.log()[log:].lower():
            raise FaultError(f"{LARGE} failed for another reason than memory: {problem}")
        if up.exit_code is not None or up.comfyui_pid != before:
            raise FaultError("ComfyUI ended when it ran out of VRAM, and was started again at best.")
        _picture(up, SMALL, _SEED + 1)
    return "the prompt failed, the next one was done"


def several_cards(pod: Pod) -> str:
    """With several cards or MIG slices, each that CUDA_VISIBLE_DEVICES names is decided for and used."""
    cards = {card["uuid"]: card["name"] for card in pod.cards()}
    names = [*pod.slices()] or [*cards]
    if len(names) < 2:
        raise NotHereError("there is one card, without MIG slices")
    for name in names:
        with pod.boot(CUDA_VISIBLE_DEVICES=name) as up:
            _as_decided(up)
            gpu = up.decision["gpu"] or {}
            if gpu.get("uuid") != name:
                raise FaultError(f"CUDA_VISIBLE_DEVICES={name}, and decided was for {gpu.get('uuid')}.")
            devices = (up.stats or {})["devices"]
            if len(devices) != 1:
                raise FaultError(
                    f"CUDA_VISIBLE_DEVICES={name}, and ComfyUI sees another number of cards than 1."
                )
            used, called = devices[0].get("name"), cards.get(name)  # "cuda:0 NVIDIA L4 : cudaMallocAsync"
            if called and f" {called} " not in f"{used} ":
                raise FaultError(f"{name} is {called}, and ComfyUI uses {used}.")
            _picture(up, SMALL)
    return f"{len(names)} of them"


CHECKS: dict[str, Callable[[Pod], str]] = {
    check.__name__: check
    for check in (
        cold_start,
        flags_accepted,
        decision_right,
        enabled_model,
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


def _as_decided(up: Booted) -> list[str]:
    """Return what was decided, which is what ComfyUI runs with."""
    argv = list(_ready(up)["system"]["argv"][1:])
    args = list(up.decision["args"])
    if argv != args:
        raise FaultError(f"ComfyUI runs with {' '.join(argv)}, and {' '.join(args)} was decided.")
    return args


def _picture(up: Booted, workflow: str, seed: int = _SEED) -> None:
    problem, files = up.prompt(workflow, seed)
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
