"""Options of registry connections, and the blobs that registries have confirmed."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from podkiln.registry import credentials
from podkiln.util.executor import JOBS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from podkiln.oci.spec import Digest
    from podkiln.registry.credentials import Credentials


class Confirmed:
    """The blobs that registries have confirmed to hold during one run, in answer to an upload or a question.

    Registries are clusters, and a blob that one of their machines has taken may be unknown to the next one
    for some seconds. So what was confirmed is not asked for again. Several threads may share it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blobs: set[tuple[str, Digest]] = set()

    def add(self, repository: str, digest: Digest) -> None:
        """Take note that a repository (HOST/NAME) holds a blob."""
        with self._lock:
            self._blobs.add((repository, digest))

    def has(self, repository: str, digest: Digest) -> bool:
        """Tell whether a repository has confirmed a blob."""
        with self._lock:
            return (repository, digest) in self._blobs

    def forget(self, repository: str) -> None:
        """Forget what a repository has confirmed: it has contradicted itself."""
        with self._lock:
            self._blobs = {entry for entry in self._blobs if entry[0] != repository}


@dataclass(frozen=True)
class RegistryOptions:
    """Options of registry connections.

    Attributes:
        ca_bundle: PEM file of CAs to trust beside those of the system.
        plain_http: Speak without TLS; None means to registries on this machine that do not speak it.
        jobs: Blobs sent at once.
        attempts: How often a request is tried that fails in a way which may pass.
        backoff: Seconds before the second attempt; doubled for each further one.
        timeout: Seconds of silence after which a connection is given up.
        login: Finds the user's login for a host.
        confirmed: What registries have confirmed during this run.
    """

    ca_bundle: Path | None = None
    plain_http: bool | None = None
    jobs: int = JOBS
    attempts: int = 6
    backoff: float = 1.0
    timeout: float = 60.0
    login: Callable[[str], Credentials | None] = credentials.lookup
    confirmed: Confirmed = field(default_factory=Confirmed, compare=False)
