"""Which jobs are open, on disk: the successor of a worker that was killed tells the platform of them.

A second worker may run beside the first, by hand perhaps. So the file is that of the process which has the
lock beside it, and another keeps none and reads none: the jobs in it are at work.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from typing import TYPE_CHECKING, Final

from pod.util import untrusted_files
from pod.util.files import write_json
from pod.util.say import say

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA: Final = 1
_LARGEST: Final = 1 << 20
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")


class JobFile:
    """The open jobs of one worker process. A disk that is full costs the file, and no job."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: dict[str, str] = {}
        self._kept = True

    def claim(self) -> dict[str, str]:
        """Make the file this process's own until it ends, and return what an earlier one left open in it.

        Each of these stays in the file until its end is noted. Where another process has the file, nothing
        is returned, and nothing is noted from now on.
        """
        self._kept = False
        try:
            untrusted_files.make_folder(self._path.parent)
            name = self._path.with_name(f".{self._path.name}.lock")
            lock = untrusted_files.open_plain(name, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            self._complain(error)
            return {}
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # kept until this process ends
        except OSError as error:
            os.close(lock)
            if not isinstance(error, BlockingIOError):
                self._complain(error)
            return {}
        # The SDK forks a process for its heartbeat. One that outlives this process would keep the lock.
        os.register_at_fork(after_in_child=lambda: os.close(lock))
        self._kept = True
        self._open = self.left()
        return dict(self._open)

    def left(self) -> dict[str, str]:
        """Return the jobs that an earlier process left open, each with its prompt in ComfyUI, "" for none.

        What cannot be read is none.
        """
        try:
            found = json.loads(untrusted_files.read_plain(self._path, _LARGEST))
            jobs = found["jobs"] if found["schema"] == SCHEMA else {}
        except (OSError, ValueError, LookupError, TypeError):
            return {}
        if not isinstance(jobs, dict):
            return {}
        return {job: str(prompt) for job, prompt in jobs.items() if is_id(job)}

    def begin(self, job: str) -> None:
        """Note that a job is open."""
        self.note(job, "")

    def note(self, job: str, prompt_id: str) -> None:
        """Note the prompt that an open job has in ComfyUI."""
        self._open[job] = prompt_id
        self._write()

    def end(self, job: str) -> None:
        """Note that a job has an answer, or none is wanted."""
        self._open.pop(job, None)
        self._write()

    def _write(self) -> None:
        if not self._kept:
            return
        try:
            write_json(self._path, {"schema": SCHEMA, "jobs": self._open})
        except OSError as error:
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        say(
            f"{self._path} cannot be written ({os.strerror(error.errno or 0)}): a job that is open when "
            "this worker is killed ends by the platform's time limit alone."
        )


def is_id(text: str) -> bool:
    """Tell whether a text can be a job's id: it becomes part of an address."""
    return _ID.fullmatch(text) is not None
