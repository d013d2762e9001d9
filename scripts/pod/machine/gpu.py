"""Which GPUs this pod has, and which one counts.

Whatever nvidia-smi does (missing, failing, hanging, talking nonsense), the result is a Detection with a
sentence.
"""

from __future__ import annotations

from dataclasses import dataclass

from pod.machine import mig, smi, visible
from pod.printable import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_SHOWN = 100  # characters of a foreign message that a sentence quotes


@dataclass(frozen=True)
class Gpu:
    """One card, or one MIG slice of a card.

    `vram_mib` is None where the driver reports none: unified memory, where the card shares the machine's RAM.
    A slice has the index of its card and its own UUID; `card` is its card's.
    """

    index: int
    uuid: str
    name: str
    vram_mib: int | None
    driver: str | None = None
    compute_cap: str | None = None
    card: str | None = None
    instance: tuple[int, int] | None = None  # GPU instance, compute instance

    def __str__(self) -> str:
        return f"{'slice of ' if self.card else ''}GPU {self.index} ({self.name})"


@dataclass(frozen=True)
class Detection:
    """The GPU that counts (the smallest visible one), or why there is none.

    `sure` is false when there may well be a GPU that could not be asked about.
    """

    gpu: Gpu | None
    visible: int = 0
    sure: bool = True
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def detect(
    question: smi.Question, environ: Mapping[str, str], limit: float = smi.LIMIT, *, device_node: bool = False
) -> Detection:
    """Wait for nvidia-smi's answer and make sense of it.

    Args:
        question: The running `smi.CARDS`.
        environ: CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER as ComfyUI will see them; NVIDIA_VISIBLE_DEVICES.
        limit: Seconds for each further question (only cards with MIG need any).
        device_node: Whether the kernel shows an NVIDIA device (/dev/nvidiactl).
    """
    try:
        code, output = question.answer()
    except smi.NoAnswerError as failure:
        return _unasked(failure, environ, device_node=device_node)
    cards = [found for line in output.splitlines() if (found := _card(line))]
    if not cards:
        return _no_cards(code, output)
    warnings: tuple[str, ...] = ()
    if code != 0:
        warnings = (f"nvidia-smi exited with {code} and said: {_quote(output)}",)
    gpus: list[Gpu] = []
    for card, has_mig in cards:
        gpus += _slices(card, limit) if has_mig else [card]
    if not gpus:
        reason = "the GPU is in MIG mode, but no slice of it has been made or given to this pod"
        return Detection(None, reasons=(reason,), warnings=warnings)
    return _pick(gpus, environ, warnings)


def _pick(gpus: list[Gpu], environ: Mapping[str, str], warnings: tuple[str, ...]) -> Detection:
    seen, why = visible.choose(
        gpus, environ.get("CUDA_VISIBLE_DEVICES"), environ.get("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    )
    reasons: tuple[str, ...] = (why,) if why else ()
    if not seen:
        return Detection(None, reasons=reasons, warnings=warnings)
    smallest = min(seen, key=lambda gpu: gpu.vram_mib or 0)
    if len({gpu.vram_mib for gpu in seen}) > 1:
        sizes = ", ".join(f"{gpu} {_size(gpu)}" for gpu in seen)
        reasons += (f"the visible GPUs differ ({sizes}), and the smallest counts",)
    return Detection(smallest, visible=len(seen), reasons=reasons, warnings=warnings)


def _size(gpu: Gpu) -> str:
    return "without memory of its own" if gpu.vram_mib is None else f"{gpu.vram_mib} MiB"


def _unasked(failure: smi.NoAnswerError, environ: Mapping[str, str], *, device_node: bool) -> Detection:
    if failure.missing and not device_node:
        hidden = environ.get("NVIDIA_VISIBLE_DEVICES", "")
        why = f"NVIDIA_VISIBLE_DEVICES={hidden}" if hidden in ("void", "none") else str(failure)
        return Detection(None, reasons=(f"there is no GPU here ({why})",))
    if failure.missing:
        capabilities = environ.get("NVIDIA_DRIVER_CAPABILITIES", "")
        hint = f"NVIDIA_DRIVER_CAPABILITIES is {capabilities!r} and must include utility"
        return Detection(None, sure=False, reasons=(f"there is an NVIDIA device, but no nvidia-smi: {hint}",))
    return Detection(None, sure=False, reasons=(str(failure),))


def _no_cards(code: int, output: str) -> Detection:
    said = _quote(output)
    if "no devices were found" in output.lower():
        return Detection(None, reasons=("nvidia-smi finds no GPU",))
    if code != 0:
        return Detection(None, sure=False, reasons=(f"nvidia-smi failed (exit code {code}): {said}",))
    return Detection(None, sure=False, reasons=(f"nvidia-smi's answer is no list of GPUs: {said}",))


def _quote(output: str) -> str:
    """Return the first line that says something, in characters that a log can show."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and _card(line) is None]
    return printable(lines[0], _SHOWN) if lines else "nothing"


def _card(line: str) -> tuple[Gpu, bool] | None:
    """Read one line of `smi.CARDS`; the name is the one field that might hold a comma."""
    fields = [field.strip() for field in line.split(",")]
    if len(fields) < len(smi.FIELDS) or not fields[0].isdecimal() or not fields[1].startswith("GPU-"):
        return None
    *name, memory, mode, driver, capability = fields[2:]
    card = Gpu(
        index=int(fields[0]),
        uuid=fields[1],
        name=", ".join(name),
        vram_mib=int(memory) if memory.isdecimal() and int(memory) > 0 else None,
        driver=_known(driver),
        compute_cap=_known(capability),
    )
    return card, mode == "Enabled"


def _known(field: str) -> str | None:
    return None if not field or field.startswith("[") or field == "N/A" else field


def _slices(card: Gpu, limit: float) -> list[Gpu]:
    return [
        Gpu(
            index=card.index,
            uuid=slice_.uuid,
            name=f"{card.name} MIG {slice_.profile}",
            vram_mib=slice_.vram_mib,
            driver=card.driver,
            compute_cap=card.compute_cap,
            card=card.uuid,
            instance=slice_.instance,
        )
        for slice_ in mig.slices(card.uuid, limit)
    ]
