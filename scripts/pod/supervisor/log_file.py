"""The log on the volume: the pod's output, kept after the pod, in files of limited size (bytes).

A volume may be full, hang, or be shared with other pods. So the log is written from a thread of its own, what
it cannot take is dropped and counted, and each pod writes to a log of its own.

logging.handlers would do the renaming alone: its queue is bounded by records, not bytes, its listener waits
for a volume that hangs, and its files are opened by name, lines of text, and followed where they are links.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections import deque

from pod.util import untrusted_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = "comfyui"
SIZE = 10 << 20  # bytes of one file
FILES = 5
HELD = 4 << 20  # bytes that wait for a slow volume at most
RETRY_SECONDS = 60.0
_PODS = 100
_GAP = b"\npodkiln: %d bytes are missing here.\n"


class RotatingLog:
    """A log that is rotated at a size limit (bytes); older ones are NAME.log.1, .2 and so on."""

    def __init__(self, path: Path, size: int = SIZE, files: int = FILES) -> None:
        self._path = path
        self._size = size
        self._files = files
        self._file: int | None = None
        self._written = 0
        self._torn = False  # whether the last line still lacks its end

    def write(self, data: bytes) -> None:
        """Append. No line is torn apart by a new file. Raises OSError."""
        if self._file is None:
            self._open()
        if self._written + len(data) > self._size:
            if self._torn:
                line, end, data = data.partition(b"\n")
                self._append(line + end)
            self._rotate()
        self._append(data)

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = None

    def _open(self) -> None:
        self._file = untrusted_files.open_plain(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._written = os.fstat(self._file).st_size

    def _append(self, data: bytes) -> None:
        while data and self._file is not None:
            count = os.write(self._file, data)
            self._written += count
            self._torn = data[count - 1 : count] != b"\n"
            data = data[count:]

    def _rotate(self) -> None:
        self.close()
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{n}") for n in range(1, self._files))]
        for older, newer in zip(reversed(names), reversed(names[:-1]), strict=False):
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)
        self._open()


class AsyncLog:
    """Takes bytes at once, and writes them when the volume can. `tell` gets a sentence when it cannot."""

    def __init__(self, folder: Path, tell: Callable[[str], None], name: str = NAME) -> None:
        self._folder = folder
        self._name = name
        self._tell = tell
        self._waiting: deque[bytes] = deque()
        self._held = 0
        self._lost = 0
        self._closing = False
        self._told = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def put(self, data: bytes) -> None:
        """Have it written; never waits for the volume."""
        with self._change:
            if self._held + len(data) > HELD:
                self._lost += len(data)
                return
            self._waiting.append(data)
            self._held += len(data)
            self._change.notify()

    def close(self, patience: float) -> None:
        """Wait until all is written, but no longer than so many seconds."""
        with self._change:
            self._closing = True
            self._change.notify()
        self._thread.join(patience)

    def _take(self) -> bytes:
        """Return what waits; nothing at the end."""
        with self._change:
            while not self._waiting and not self._closing:
                self._change.wait()
            data = b"".join(self._waiting)
            self._waiting.clear()
            self._held = 0
            return data

    def _work(self) -> None:
        log: RotatingLog | None = None
        not_before = 0.0
        while data := self._take():
            if time.monotonic() < not_before:
                self._lose(len(data))
                continue
            lost = self._lost
            try:
                log = log or RotatingLog(own_path(self._folder, self._name))
                log.write(_GAP % lost + data if lost else data)
            except OSError as error:
                not_before = time.monotonic() + RETRY_SECONDS
                self._lose(len(data))
                self._complain(error)
                if log:
                    log.close()
            else:
                self._lose(-lost)
        if log:
            log.close()

    def _lose(self, count: int) -> None:
        with self._change:
            self._lost += count

    def _complain(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            self._tell(
                f"the log in {self._folder} cannot be written ({error.strerror}): what is missing there can "
                "only be read in the pod's own log."
            )


def own_path(folder: Path, base: str = NAME) -> Path:
    """Return the log that no other pod on this volume writes to. Raises OSError.

    A pod's lock on it ends with the pod. Where a volume knows no locks, pods write to one log in turns.
    """
    untrusted_files.make_folder(folder)
    for number in range(1, _PODS):
        name = base if number == 1 else f"{base}-{number}"
        lock = untrusted_files.open_plain(folder / f".{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # kept until this process ends
        except BlockingIOError:
            os.close(lock)
        except OSError:
            break
        else:
            break
    return folder / f"{name}.log"
