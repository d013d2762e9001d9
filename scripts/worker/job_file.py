"""Which jobs are open, on disk: the successor of a worker that was killed tells the platform of them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Final

from pod.util import untrusted_files
from pod.util.files import write_json
from pod.util.say import say

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA: Final = 1
_LARGEST: Final = 1 << 20
_LONGEST_ID: Final = 200


class JobFile:
    """The open jobs of one worker process. A disk that is full costs the file, and no job."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: dict[str, str] = {}

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

    def forget(self) -> None:
        """Drop what an earlier process left open."""
        self._write()

    def _write(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, {"schema": SCHEMA, "jobs": self._open})
        except OSError as error:
            say(
                f"{self._path} cannot be written ({os.strerror(error.errno or 0)}): a job that is open when "
                "this worker is killed ends by the platform's time limit alone."
            )


def is_id(text: str) -> bool:
    """Tell whether a text can be a job's id: it becomes part of an address."""
    return 0 < len(text) <= _LONGEST_ID and text.isascii() and text.isprintable()
