"""Which GPUs this pod has, and which one counts.

Whatever nvidia-smi does (missing, failing, hanging, talking nonsense), the result is a Detection with a
sentence.
"""

from __future__ import annotations

import re

from pod.hardware import cuda_visible_devices, mig, nvidia_smi
from pod.util.dataclass import dataclass, replace
from pod.util.printable import printable, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_FEW = 4  # cards that a sentence names
_LONGEST = 100  # characters of what the driver says that a sentence quotes
WITHOUT = "COMFYUI_ARGS=--cpu does without the GPU"
_UNKNOWN_FIELD = re.compile(r'Field "([^"]{1,40})" is not a valid field')
# What the driver writes for the memory of a card that has none of its own. Anything else in brackets, such as
# [Unknown Error] or [GPU is lost], is a failure to tell.
_LOST = re.compile(r"GPU is lost|GPU requires reset|ERR!", re.IGNORECASE)
_NO_MEMORY = ("[N/A]", "[Not Supported]", "N/A", "Not Supported")


@dataclass(frozen=True)
class Gpu:
    """One card, or one MIG slice of a card.

    `vram_mib` is None where the driver reports none: because the card shares the machine's RAM (`unified`),
    or because it could not be read; `memory` is then what the driver wrote instead. `free_mib` is what nobody
    held when it was asked, where that is told. A slice has the index of its card and its own UUID; `card` is
    its card's. `lost` is what the driver says of one that is unusable.
    """

    index: int
    uuid: str
    name: str
    vram_mib: int | None
    driver: str | None = None
    compute_cap: str | None = None
    card: str | None = None
    instance: tuple[int, int] | None = None  # GPU instance, compute instance
    unified: bool = False
    memory: str | None = None
    lost: str | None = None
    free_mib: int | None = None

    def __str__(self) -> str:
        return f"{'slice of ' if self.card else ''}GPU {self.index} ({self.name})"


@dataclass(frozen=True)
class Detection:
    """The GPU that counts (the smallest visible one, with no more free than any), or why there is none.

    `sure` is false when there may well be a GPU that could not be asked about. `unusable` is the phrase that
    says why a GPU that is there, or should be, cannot be used, and what to do; None for no such GPU.
    """

    gpu: Gpu | None
    visible: int = 0
    sure: bool = True
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unusable: str | None = None


def detect(
    question: nvidia_smi.NvidiaSmiQuery,
    environ: Mapping[str, str],
    limit: float = nvidia_smi.LIMIT,
    *,
    witness: str | None = None,
    said: str | None = None,
    unified: Sequence[str] = (),
) -> Detection:
    """Wait for nvidia-smi's answer and make sense of it.

    Args:
        question: The running query of nvidia_smi.CARDS.
        environ: CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER as ComfyUI will see them; NVIDIA_VISIBLE_DEVICES.
        limit: Seconds for each further question (old drivers, cards with MIG, memory that is not told).
        witness: Why there should be a GPU, from pod.hardware.gpu_presence; None where nothing says so.
        said: What the user wrote to choose cards, where that is not CUDA_VISIBLE_DEVICES itself.
        unified: Words in the names of the cards that are known to share the machine's RAM.
    """
    try:
        code, output, fields = _ask(question, limit)
    except nvidia_smi.NoAnswerError as failure:
        found = _unasked(failure, environ, witness)
    else:
        cards = [card for line in output.splitlines() if (card := _card(line, fields))]
        if cards:
            warnings = () if code == 0 else (f"nvidia-smi exited with {code} and said: {_quote(output)}",)
            found = _from_cards(
                cards, environ, warnings, said, lambda card, has_mig: _expand(card, has_mig, limit, unified)
            )
        else:
            found = _no_cards(code, output, witness or _shown_card(output))
    if cuda_visible_devices.none_wanted(environ.get(cuda_visible_devices.VARIABLE)):
        return replace(found, unusable=None)
    return found


def _from_cards(
    cards: Sequence[tuple[Gpu, bool]],
    environ: Mapping[str, str],
    warnings: tuple[str, ...],
    said: str | None,
    expand: Callable[[Gpu, bool], list[Gpu]],
) -> Detection:
    """Leave out the cards that the driver has lost, and pick from the others."""
    lost = [card for card, _ in cards if card.lost]
    if len(lost) == len(cards):
        reason = f"the driver says of {lost[0]}: {lost[0].lost}"
        return Detection(
            None, reasons=(reason,), warnings=warnings, unusable=f"{reason}: rent another machine; {WITHOUT}"
        )
    warnings += tuple(f"the driver says of {card}: {card.lost}; it is not used" for card in lost)
    gpus = [gpu for card, has_mig in cards if not card.lost for gpu in expand(card, has_mig)]
    return _pick(gpus, environ, warnings, said)


def _shown_card(output: str) -> str | None:
    """Return the phrase for an answer that lists a card, although of none that can be used."""
    for line in output.splitlines():
        if (
            re.match(r"[0-9]{1,3}, *[^,]*, *[^,]*[A-Za-z]", line)
            and line.count(",") >= len(nvidia_smi.BASIC_FIELDS) - 1
        ):
            return "it lists one"
    return None


def _ask(question: nvidia_smi.NvidiaSmiQuery, limit: float) -> tuple[int, str, Sequence[str]]:
    """Return exit code, output and the fields that it has; old drivers are asked again for fewer."""
    code, output = question.answer()
    fields: Sequence[str] = nvidia_smi.FIELDS
    while code != 0 and (
        unknown := {*_UNKNOWN_FIELD.findall(output)} & {*fields} - {*nvidia_smi.BASIC_FIELDS}
    ):
        fields = [field for field in fields if field not in unknown]
        with nvidia_smi.NvidiaSmiQuery(nvidia_smi.query(fields), limit) as again:
            code, output = again.answer()
    return code, output, fields


def _expand(card: Gpu, has_mig: bool, limit: float, unified: Sequence[str]) -> list[Gpu]:
    """Return a card's slices where it is in MIG mode, else the card with its memory, if it is known."""
    if has_mig:
        return _slices(card, limit)
    if card.vram_mib is not None:
        return [card]
    if card.memory in _NO_MEMORY and {*re.findall(r"[a-z0-9]+", card.name.lower())} & {
        word.lower() for word in unified
    }:
        return [replace(card, unified=True)]
    return [replace(card, vram_mib=mig.card_memory(card.uuid, limit))]


def _pick(
    gpus: list[Gpu], environ: Mapping[str, str], warnings: tuple[str, ...], said: str | None = None
) -> Detection:
    if not gpus:
        reason = "the GPU is in MIG mode, but no slice of it has been made or given to this pod"
        hint = f"have one made or given, or rent another machine; {WITHOUT}"
        return Detection(None, reasons=(reason,), warnings=warnings, unusable=f"{reason}: {hint}")
    seen, why = cuda_visible_devices.choose(
        gpus,
        environ.get(cuda_visible_devices.VARIABLE),
        environ.get("CUDA_DEVICE_ORDER", "FASTEST_FIRST"),
        said,
    )
    reasons: tuple[str, ...] = (why,) if why else ()
    if not seen:
        here = ", ".join(str(gpu) for gpu in gpus[:_FEW])
        return Detection(
            None,
            reasons=reasons,
            warnings=warnings,
            unusable=f"{why}; here is {here}; correct it, or {WITHOUT}",
        )
    smallest = min(seen, key=lambda gpu: gpu.vram_mib or 0)
    if len({gpu.vram_mib for gpu in seen}) > 1:
        sizes = ", ".join(f"{gpu} {_size(gpu)}" for gpu in seen)
        reasons += (f"the visible GPUs differ ({sizes}), and the smallest counts",)
    free = [gpu for gpu in seen if gpu.free_mib is not None]
    least = min(free, key=lambda gpu: gpu.free_mib or 0, default=smallest)
    if smallest.free_mib is not None and least.free_mib != smallest.free_mib:
        reasons += (f"of the visible GPUs {least} has the least free, {least.free_mib} MiB, and that counts",)
        smallest = replace(smallest, free_mib=least.free_mib)
    return Detection(smallest, visible=len(seen), reasons=reasons, warnings=warnings)


def _size(gpu: Gpu) -> str:
    if gpu.vram_mib is None:
        return "without memory of its own" if gpu.unified else "with an unknown amount of memory"
    return f"{gpu.vram_mib} MiB"


def _unasked(failure: nvidia_smi.NoAnswerError, environ: Mapping[str, str], witness: str | None) -> Detection:
    if not failure.missing:
        return _unusable(str(failure), witness, "rent another machine", sure=False)
    if witness is None:
        hidden = environ.get("NVIDIA_VISIBLE_DEVICES", "")
        why = f"NVIDIA_VISIBLE_DEVICES={hidden}" if hidden in ("void", "none") else str(failure)
        return Detection(None, reasons=(f"there is no GPU here ({why})",))
    capabilities = environ.get("NVIDIA_DRIVER_CAPABILITIES", "")
    hint = f"NVIDIA_DRIVER_CAPABILITIES is {shown(capabilities, _LONGEST)!r} and must include utility"
    reason = f"{witness}, but there is no nvidia-smi: {hint}"
    return Detection(None, sure=False, reasons=(reason,), unusable=f"{reason}; {WITHOUT}")


def _unusable(reason: str, witness: str | None, hint: str, *, sure: bool) -> Detection:
    """Say that nvidia-smi shows no GPU; where there should be one, the start is refused."""
    if witness is None:
        return Detection(None, sure=sure, reasons=(reason,))
    reason = f"{reason}, but {witness}"
    return Detection(None, sure=sure, reasons=(reason,), unusable=f"{reason}: {hint}; {WITHOUT}")


def _no_cards(code: int, output: str, witness: str | None) -> Detection:
    said = _quote(output)
    if "no devices were found" in output.lower():
        return _unusable("nvidia-smi finds no GPU", witness, "rent another machine", sure=True)
    if code != 0:
        reason = f"nvidia-smi failed (exit code {code}): {said}"
    else:
        reason = f"nvidia-smi's answer is not a list of GPUs: {said}"
    return _unusable(reason, witness, "rent another machine", sure=False)


def _quote(output: str) -> str:
    """Return the first line that says something, in characters that a log can show."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and _card(line) is None]
    return shown(lines[0], _LONGEST) if lines else "nothing"


def _card(line: str, fields: Sequence[str] = nvidia_smi.FIELDS) -> tuple[Gpu, bool] | None:
    """Read one line of nvidia_smi.query(fields); the name is the one field that might hold a comma."""
    values = [value.strip() for value in line.split(",")]
    after = len(fields) - 3  # the fields that follow the name
    if len(values) < len(fields) or not values[1].startswith("GPU-"):
        return None
    index = mig.integer(values[0])
    if index is None:
        return None
    told = dict(zip(fields[3:], values[-after:], strict=True))
    memory = mig.integer(told["memory.total"])
    card = Gpu(
        index=index,
        uuid=printable(values[1], _LONGEST),
        name=printable(", ".join(values[2:-after]), _LONGEST),
        vram_mib=memory or None,
        driver=_known(told.get("driver_version", "")),
        compute_cap=_known(told.get("compute_cap", "")),
        memory=None if memory else printable(told["memory.total"], _LONGEST),
        lost=next((printable(value, _LONGEST) for value in values if _LOST.search(value)), None),
        free_mib=mig.integer(told.get("memory.free", "")),
    )
    return card, told.get("mig.mode.current") == "Enabled"


def _known(field: str) -> str | None:
    return None if not field or field.startswith("[") or field == "N/A" else printable(field, _LONGEST)


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
