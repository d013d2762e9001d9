"""Asking nvidia-smi: started early, waited for no longer than its limit, killed with all that it started.

This module imports little on purpose: decide starts nvidia-smi first and loads everything else beside it.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time

from pod.util import env

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

LIMIT = 5.0  # seconds; without persistence mode a healthy nvidia-smi takes a few
LONGEST = 60.0  # seconds; a boot that waits longer is worse than one without a GPU

# Fields of `nvidia-smi --help-query-gpu`. A driver refuses the whole question for one field that it does not
# know: compute_cap came after driver 470, mig.mode.current with 450. The first four every driver has.
FIELDS = (
    "index",
    "uuid",
    "name",
    "memory.total",
    "mig.mode.current",
    "driver_version",
    "compute_cap",
    "memory.free",
)
BASIC_FIELDS = FIELDS[:4]
LIST = ("-L",)
DETAILS = ("-q", "-x")
MAX_BYTES = 8 << 20  # a machine with 16 cards writes about 1 MB of XML
_CHUNK = 65536
_POLL = 0.2  # seconds between two looks at whether it has ended


def query(fields: Sequence[str]) -> tuple[str, str]:
    """Return the arguments that ask for these fields of all cards, one line a card."""
    return f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"


CARDS = query(FIELDS)

_GRACE = (
    1.0  # seconds to wait for a killed child; one stuck in the driver cannot die, and we do not wait for it
)


def limit(environ: Mapping[str, str]) -> float:
    """Return how many seconds nvidia-smi may take: PODKILN_NVIDIA_SMI_TIMEOUT. Raises SettingError."""
    return env.seconds("PODKILN_NVIDIA_SMI_TIMEOUT", environ, LIMIT, LONGEST)


class NoAnswerError(Exception):
    """nvidia-smi said nothing that could be read; the message is a sentence.

    `missing` is true when the program is not installed, which on a machine without a GPU is as it should be.
    """

    def __init__(self, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


class NvidiaSmiQuery:
    """One running nvidia-smi. Use it as a context manager: leaving kills what has not answered."""

    def __init__(self, arguments: Sequence[str] = CARDS, limit: float = LIMIT) -> None:
        self._limit = limit
        self._deadline = time.monotonic() + limit
        self._process: subprocess.Popen[bytes] | None = None
        self._failure: NoAnswerError | None = None
        try:
            self._process = subprocess.Popen(
                ["nvidia-smi", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,  # it writes its errors to either
                start_new_session=True,  # a group of its own, so that its children die with it
            )
        except FileNotFoundError:
            self._failure = NoAnswerError("nvidia-smi is not installed", missing=True)
        except OSError as error:
            self._failure = NoAnswerError(f"nvidia-smi could not be started ({error.strerror})")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()

    def answer(self) -> tuple[int, str]:
        """Return nvidia-smi's exit code and all that it printed. Raises NoAnswerError."""
        if self._process is None:
            raise self._failure or NoAnswerError("nvidia-smi has been asked already")
        try:
            output = self._read(self._process)
            code = self._process.wait(max(0.0, self._deadline - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired):
            self._kill()
            message = f"nvidia-smi did not answer within {self._limit:g} s and was ended"
            raise NoAnswerError(message) from None
        return code, output.decode("utf-8", errors="replace")

    def _read(self, process: subprocess.Popen[bytes]) -> bytes:
        """Read all that it prints. Raises TimeoutError, and NoAnswerError for more than MAX_BYTES."""
        if process.stdout is None:  # it is a pipe
            return b""
        pipe, output = process.stdout.fileno(), bytearray()
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if not select.select([pipe], [], [], min(left, _POLL))[0]:
                if process.poll() is not None and not select.select([pipe], [], [], 0)[0]:
                    return bytes(output)  # what it has started holds the pipe open
                continue
            chunk = os.read(pipe, _CHUNK)
            if not chunk:
                return bytes(output)
            output += chunk
            if len(output) > MAX_BYTES:
                self._kill()
                raise NoAnswerError(f"nvidia-smi printed more than {MAX_BYTES >> 20} MiB and was ended")

    def _kill(self) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            try:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(_GRACE)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                pass
        if process.stdout is not None:
            process.stdout.close()
