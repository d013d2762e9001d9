"""What libraries raise, read by what it says: whether the card's memory was not enough, and in one line."""

from __future__ import annotations

from typing import Final

from pod.util.printable import shown

_LONGEST: Final = 300  # characters of a library's message
_OUT_OF_MEMORY: Final = ("CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether the card's memory was not enough; older kernels raise a plain RuntimeError."""
    text = str(error)
    if type(error).__name__ in {"OutOfMemoryError", "AcceleratorError"}:
        return "memory" in text.lower()
    return isinstance(error, RuntimeError) and any(word in text for word in _OUT_OF_MEMORY)


def first_line(error: BaseException) -> str:
    """Return the beginning of a message, in one line, without its last full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shown(lines[0] if lines else "no reason given", _LONGEST).rstrip(". ")
