"""What nvidia-smi says, asked with a limit: whatever it does, the result is a value or one sentence."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT = 20.0  # seconds; without persistence mode a healthy one takes a few
FIELDS = ("index", "uuid", "name", "memory.total", "driver_version", "compute_cap")
VISIBLE = "CUDA_VISIBLE_DEVICES"


class MachineError(Exception):
    """Why this machine cannot be measured: one sentence."""


def ask(*words: str, limit: float = LIMIT) -> str:
    """Return all that nvidia-smi prints. Raises MachineError where it fails, hangs or is not there."""
    try:
        process = subprocess.Popen(
            ["nvidia-smi", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
    except OSError as error:
        raise MachineError(f"nvidia-smi could not be started ({error.strerror}).") from None
    try:
        output = process.communicate(timeout=limit)[0].decode("utf-8", errors="replace")
    except subprocess.TimeoutExpired:
        raise MachineError(f"nvidia-smi did not answer within {limit:g} s.") from None
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(1)  # and no longer: one that is stuck in the driver cannot die
        if process.stdout is not None:
            process.stdout.close()
    if process.returncode:
        raise MachineError(f"nvidia-smi failed (exit code {process.returncode}): {_first(output)}")
    return output


def cards(fields: Sequence[str] = FIELDS, limit: float = LIMIT) -> list[dict[str, str]]:
    """Return the fields of each card, as `nvidia-smi --query-gpu` writes them. Raises MachineError."""
    output = ask(f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", limit=limit)
    rows = [[word.strip() for word in line.split(",")] for line in output.splitlines() if line.strip()]
    if not rows or any(len(row) != len(fields) for row in rows):
        raise MachineError(f"nvidia-smi's answer is not a list of cards: {_first(output)}")
    return [dict(zip(fields, row, strict=True)) for row in rows]


def card(fields: Sequence[str] = FIELDS, limit: float = LIMIT) -> dict[str, str]:
    """Return the fields of the card that CUDA uses: the first one that is visible. Raises MachineError."""
    asked = os.environ.get(VISIBLE, "").partition(",")[0].strip()
    found = cards((*dict.fromkeys(("index", "uuid", *fields)),), limit)
    if not asked:
        return found[0]
    for row in found:
        if asked == row["index"] or row["uuid"].startswith(asked):
            return row
    raise MachineError(f"{VISIBLE} names {asked}, and nvidia-smi shows no such card.")


def mib(field: str, limit: float = LIMIT) -> int:
    """Return a field in MiB of the card that CUDA uses. Raises MachineError where it is no number."""
    value = card((field,), limit)[field]
    if not value.isdecimal():
        raise MachineError(f"nvidia-smi does not tell the card's {field} ({value}).")
    return int(value)


def slices() -> list[str]:
    """Return the UUIDs of MIG slices. Raises MachineError."""
    lines = [line for line in ask("-L").splitlines() if line.lstrip().startswith("MIG ")]
    return [line.rpartition("UUID: ")[2].rstrip(")") for line in lines]


def _first(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return "".join(letter if letter.isprintable() else "?" for letter in (lines or ["nothing"])[0][:100]) + (
        "." if not lines or not lines[0].endswith(".") else ""
    )
