"""A job's answer, put together as its files come, and never larger than the platform passes on. Pure."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Final

from pod.util.printable import shown
from worker import messages
from worker.errors import JobError
from worker.outputs import GROUPS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.outputs import OutputFile

LARGEST: Final = 20_000_000
"""Bytes of an answer: RunPod refuses larger ones with a 400, and their clients wait for ever.

Source: issues 129 and 167 of worker-comfyui; 20 MB is what the SDK's rp_tips.py warns of.
"""
OF_RUNPOD: Final = "which RunPod does not pass on"
"""What is said of larger ones."""
_AROUND: Final = 1000  # bytes of JSON around it all


class Answer:
    """What a client gets. `legacy`: videos stand among the images too, where worker-comfyui has them.

    `largest`: the bytes that it may have; `beyond`: what is said of one that has more.
    """

    def __init__(self, *, legacy: bool = False, largest: int = LARGEST, beyond: str = OF_RUNPOD) -> None:
        self._legacy = legacy
        self._largest = largest
        self._beyond = beyond
        self._size = _AROUND
        self._groups: dict[str, list[dict[str, Any]]] = {name: [] for name in GROUPS}
        self._texts: list[dict[str, str]] = []

    def room(self, file: OutputFile) -> int:
        """Return how many bytes a file may have."""
        left = (self._largest - self._size) // len(file.groups(legacy=self._legacy))
        return max(0, (left - _size(_entry(file, ""))) // 4 * 3)

    def add(self, file: OutputFile, content: bytes) -> None:
        """Take a file. Raises JobError where the answer would become too large."""
        if len(content) > self.room(file):
            raise self.too_large(file)
        self._put(file, "base64", base64.b64encode(content).decode())

    def link(self, file: OutputFile, url: str) -> None:
        """Take the address of a file in a bucket. Raises JobError where the answer would become too large."""
        self._put(file, "s3_url", url)
        if self._size > self._largest:
            raise JobError(
                f"The addresses of this job's files are larger than {self._limit}, {self._beyond}: ask for "
                "fewer outputs."
            )

    def _put(self, file: OutputFile, kind: str, data: str) -> None:
        entry = {**_entry(file, data), "type": kind}
        for group in file.groups(legacy=self._legacy):
            self._groups[group].append(entry)
            self._size += _size({**entry, "data": ""}) + len(data)

    def say(self, texts: Sequence[dict[str, str]]) -> None:
        """Take what nodes showed as text. Raises JobError where the answer would become too large."""
        self._texts += texts
        self._size += sum(_size(each) for each in texts)
        if self._size > self._largest:
            raise JobError(f"The texts of this job are larger than {self._limit}, {self._beyond}.")

    def too_large(self, file: OutputFile) -> JobError:
        """Return the error for a file that there is no room for."""
        return JobError(
            f"The results of this job are larger than {self._limit} as base64, {self._beyond} "
            f"({shown(file.output.filename)} does not fit): ask for fewer or smaller outputs, or give "
            "the worker a bucket (BUCKET_ENDPOINT_URL)."
        )

    @property
    def _limit(self) -> str:
        return f"{self._largest / 1e6:g} MB"

    def result(self, errors: Sequence[str]) -> dict[str, Any]:
        """Return it. Raises JobError where errors are all that came out."""
        said = {name: each for name, each in (*self._groups.items(), ("texts", self._texts)) if each}
        if not said and errors:
            raise JobError(messages.JOB_FAILED, errors)
        if not said:
            return {"status": messages.NO_IMAGES, "images": []}
        return {"images": [], **said, **({"errors": list(errors)} if errors else {})}


def _entry(file: OutputFile, data: str) -> dict[str, Any]:
    return {
        "filename": file.output.filename,
        "subfolder": file.output.subfolder,
        "type": "base64",
        "mime": file.mime,
        "node": file.output.node,
        "data": data,
    }


def _size(value: object) -> int:
    """Return how many bytes something takes in a list of JSON, at most."""
    return len(json.dumps(value)) + 2
