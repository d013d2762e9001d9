"""CUDA_VISIBLE_DEVICES, read as the CUDA driver reads it.

The rules are NVIDIA's (CUDA Programming Guide, CUDA Environment Variables): indices, or UUIDs that may be cut
short; the first entry that names nothing ends the list. NVIDIA_VISIBLE_DEVICES is not read here: it speaks to
the container runtime, which has already hidden the other cards and renumbered the others.
"""

from __future__ import annotations

from pod.util.printable import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pod.hardware.gpu import Gpu

VARIABLE = "CUDA_VISIBLE_DEVICES"
SHOWN = 100  # characters of the value that a sentence quotes
_NOTHING = ("-1", "NoDevFiles")  # two customs: CUDA's, and Slurm's for "none"


def none_wanted(value: str | None) -> bool:
    """Whether the variable hides every GPU on purpose; an empty value is more often a blank form field."""
    return value is not None and value.split(",")[0].strip() in _NOTHING


def choose(
    gpus: Sequence[Gpu], value: str | None, order: str, said: str | None = None
) -> tuple[list[Gpu], str | None]:
    """Return the GPUs that CUDA will see, and a sentence where the variable changed anything.

    Args:
        gpus: Cards and slices as nvidia-smi lists them, which is by PCI bus.
        value: CUDA_VISIBLE_DEVICES; None when it is not set.
        order: CUDA_DEVICE_ORDER; indices mean nvidia-smi's numbers under PCI_BUS_ID alone.
        said: What the user wrote, where that is not the variable.
    """
    if value is None:
        return list(gpus), None
    names = [name.strip() for name in value.split(",")]
    if names == [""]:
        return [], f"{said or VARIABLE} is set but empty, which hides every GPU: unset it to use them"
    said = said or f"{VARIABLE}={shown(value, SHOWN)}"
    if len(set(names)) < len(names):
        return [], f"{said} names a GPU twice, and CUDA then shows none: name each once"
    seen: list[Gpu] = []
    for name in names:
        found = _named(gpus, name)
        if not found:
            return seen, None if len(seen) == len(gpus) else _ends(said, name, seen)
        seen += found
    if names[0].isdecimal() and order != "PCI_BUS_ID" and len({gpu.vram_mib for gpu in gpus}) > 1:
        return list(gpus), (
            f"{said} counts by CUDA_DEVICE_ORDER={order}, which nvidia-smi does not show, "
            "so every GPU is considered"
        )
    return seen, f"{said} leaves {len(seen)} of {len(gpus)}" if len(seen) < len(gpus) else None


def _ends(said: str, name: str, seen: Sequence[Gpu]) -> str:
    if name in _NOTHING:
        what = f"ends at {name}"
    elif name == "all":
        what = "says all, a word that only NVIDIA_VISIBLE_DEVICES knows"
    else:
        what = f"names {shown(name, SHOWN)!r}, which is not exactly one GPU here"
    left = "every GPU" if not seen else f"all but {len(seen)}"
    return f"{said} {what}, which hides {left}"


def _named(gpus: Sequence[Gpu], name: str) -> list[Gpu]:
    """Return the GPU of one entry; for a card in MIG mode its slices, of which CUDA takes one."""
    if name.isdecimal():  # compared as text: int() refuses thousands of digits
        return [gpu for gpu in gpus if str(gpu.index) == (name.lstrip("0") or "0")]
    if name.startswith(
        "MIG-GPU-"
    ):  # the form before driver 470: MIG-<UUID of the card>/<instance>/<instance>
        return [gpu for gpu in gpus if gpu.instance and name == _old_name(gpu)]
    if name.startswith("MIG-"):
        slices = [gpu for gpu in gpus if gpu.uuid.startswith(name)]
        return slices if len(slices) == 1 else []
    if name.startswith("GPU-"):
        cards = {gpu.card or gpu.uuid for gpu in gpus if (gpu.card or gpu.uuid).startswith(name)}
        return [gpu for gpu in gpus if cards == {gpu.card or gpu.uuid}]
    return []


def _old_name(gpu: Gpu) -> str:
    instance = gpu.instance or (0, 0)
    return f"MIG-{gpu.card}/{instance[0]}/{instance[1]}"
