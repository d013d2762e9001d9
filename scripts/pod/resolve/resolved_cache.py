"""What the hubs once said, kept for all later starts: `$WORKSPACE/.podkiln/resolved.json`.

So the next start fetches, and expects, the same bytes, and needs no hub for what is already there.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from pod.util import bounded_json, untrusted_files
from pod.util.file_lease import FileLease
from pod.util.files import write_json

if TYPE_CHECKING:
    from pathlib import Path

FILES = "files"  # of models: what to expect, and at which commit
WISHES = "wishes"  # of MODELS and LORAS: which file it is, and where it belongs
_SCHEMA = 1
_LARGEST = 8 << 20  # bytes: some 20 000 files
_WAIT_SECONDS = 2.0


class ResolvedCache:
    """The record of one volume, which several pods may share."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def get(self, section: str, key: str) -> Any:
        """Return what is remembered; None for nothing, and where the record is damaged."""
        return self._read().get(section, {}).get(key)

    def put(self, section: str, key: str, value: Any) -> None:
        """Remember; what cannot be written is only asked again."""
        lease = FileLease(self._path.with_name("resolved.lock"))
        with self._lock, contextlib.suppress(OSError):
            end = time.monotonic() + _WAIT_SECONDS  # then without: what gets lost is only asked again
            while not (owned := lease.acquire()) and time.monotonic() < end:
                time.sleep(0.05)
            try:
                known = self._read()
                known[section] = {**known.get(section, {}), key: value}
                write_json(self._path, {"schema": _SCHEMA, **known})
            finally:
                if owned:
                    lease.release()

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            record = bounded_json.parse(untrusted_files.read_plain(self._path, _LARGEST))
            return {name: record[name] for name in (FILES, WISHES) if isinstance(record.get(name), dict)}
        except (OSError, ValueError, AttributeError):
            return {}
