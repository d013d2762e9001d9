"""What a model is estimated to need on the card and of RAM, by mode, from the sizes of its files.

Rules, not measurements: weights are loaded in 16 bits, so what is stored in 32 takes half, and plain float8
twice; what is packed (GGUF, bitsandbytes) stays as it is. What the computation itself needs is a flat figure
by task, for 1024x1024 pictures and 5 s of 480p video with a tiled VAE.
"""

from __future__ import annotations

from math import prod

from pod.util.dataclass import dataclass
from server.detection.decision import Memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pod.resolve.safetensors_header import SafetensorsHeader
    from server.detection.facts import Facts, File

_GIB = 1 << 30
_WORK = {"image": 3 * _GIB, "video": 8 * _GIB, "audio": 2 * _GIB}
_BLOCKS = 20
"""Group offload keeps two blocks of some forty on the card."""
_PYTHON = 4 * _GIB
"""RAM of the process before any weight: torch, diffusers, CUDA's libraries."""
_TIMES = {"F64": 0.25, "F32": 0.5, "F8_E4M3": 2.0, "F8_E5M2": 2.0}
"""Bytes in 16 bits for one that is stored."""
_CORE = "model.diffusion_model."
_VAE = ("first_stage_model.", "vae.")
_DENOISERS = ("transformer", "unet", "prior", "decoder")


@dataclass(frozen=True)
class Share:
    """A component's weights in bytes as they are computed with; None where that is not known."""

    name: str
    size: int | None


def share(name: str, files: Sequence[File], facts: Facts) -> Share:
    """Return what a component takes; in how many bits it is stored is told by the head of its first file."""
    weights = [file for file in files if file.name.endswith((".safetensors", ".sft", ".gguf"))]
    if any(file.size is None for file in weights):
        return Share(name, None)
    stored = sum(file.size or 0 for file in weights)
    header = facts.headers.get(weights[0].path) if weights else None
    return Share(name, round(stored * _times(header)))


def shares_of_checkpoint(file: File, facts: Facts) -> list[Share]:
    """Return what the components in one file take, by the numbers that stand behind their prefixes."""
    header = facts.headers.get(file.path)
    if file.size is None or header is None:
        return [Share("transformer", None)]
    counts = {"transformer": 0, "vae": 0, "text_encoder": 0}
    whole = any(name.startswith(_CORE) for name in header.tensors)
    for name, shape in header.tensors.items():
        part = "vae" if name.startswith(_VAE) else "text_encoder"
        counts["transformer" if not whole or name.startswith(_CORE) else part] += prod(shape)
    total = sum(counts.values()) or 1
    size = file.size * _times(header)
    return [Share(part, round(size * count / total)) for part, count in counts.items() if count]


def _times(header: SafetensorsHeader | None) -> float:
    total = sum(header.dtypes.values()) if header else 0
    if header is None or not total:
        return 1.0
    return sum(size * _TIMES.get(dtype, 1.0) for dtype, size in header.dtypes.items()) / total


def estimate(shares: Sequence[Share], task: str) -> tuple[Memory, ...]:
    """Return the need of each mode, by its name for GPU_MEMORY_MODE; nothing where a size is not known."""
    sizes = [each.size for each in shares if each.size is not None]
    if not sizes or len(sizes) != len(shares):
        return ()
    total, largest = sum(sizes), max(sizes)
    core = sum(each.size or 0 for each in shares if each.name.startswith(_DENOISERS))
    others = max((each.size or 0 for each in shares if not each.name.startswith(_DENOISERS)), default=0)
    work = next((need for kind, need in _WORK.items() if kind in task.rpartition("-to-")[2]), _WORK["image"])
    if "video" in task:
        work = _WORK["video"]
    held = total + _PYTHON
    return (
        Memory("full", total + work, largest + _PYTHON),
        Memory("layerwise_fp8", total - core // 2 + work, largest + _PYTHON),
        Memory("model_offload", largest + work, held),
        Memory("model_offload_fp8", max(core // 2, others) + work, held - core // 2),
        Memory("group_offload", min(max(largest // _BLOCKS, _GIB // 2), largest) + work, held),
        Memory("sequential_offload", _GIB // 2 + work * 2 // 3, held),
    )
