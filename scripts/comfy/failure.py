"""What stops podkiln-comfy: one sentence, and an exit code that scripts can branch on."""

from __future__ import annotations

from typing import Any

from pod.errors import PodError

USAGE = 64
"""An option with an impossible value."""
WORKFLOW_UNREADABLE = 65
IMAGE_UNREADABLE = 66
UNREACHABLE = 69
FAILED = 1
"""ComfyUI refused the workflow, or it failed while it ran."""
TIMED_OUT = 75
CANNOT_SAVE = 73


class ComfyError(PodError):
    """A failure in words; the exit codes are those of sysexits.h where it has one."""


class RefusedError(ComfyError):
    """ComfyUI took nothing of a workflow; `status` and `answer` are what it said to /prompt, as it came."""

    def __init__(self, message: str, status: int, answer: Any) -> None:
        super().__init__(message, FAILED)
        self.status = status
        self.answer = answer


class GoneError(ComfyError):
    """ComfyUI names a file that is not there: it remembers what a node made, and the file was deleted."""
