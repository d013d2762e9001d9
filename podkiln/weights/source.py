"""Where weights come from: a file read from any offset on, over broken connections, in bounded memory.

Pods fetch from the same places, so requests, redirects, tokens and what refusals mean are the pod's own code
(http.py and hubs.py in scripts/pod/net/): a token goes to the origin that it belongs to, and no other.
Hashes are not looked at here but where the bytes arrive (podkiln.weights.bake).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from concurrent.futures import CancelledError, Future, InvalidStateError
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, Self

from pod.errors import PodError
from pod.net.content_range import linked_sha256
from pod.net.http import Answer, Limits, RefusedError, TransientError
from pod.net.hubs import Hubs, Request, request_for
from pod.net.integrity import check_type
from pod.net.transfer_policy import TransferBackoff, TransferPolicy
from podkiln.errors import IntegrityError, SourceError, UsageError
from podkiln.registry.headers import content_range, number
from podkiln.registry.tls import tls_context
from podkiln.registry.trickle import LeastRate, headway

if TYPE_CHECKING:
    from collections.abc import Mapping
    from io import FileIO

    from podkiln.plan.weight_layers import WeightFile

log = logging.getLogger(__name__)

CHUNK: Final = 2 << 20
"""Bytes to read at once: what is handed from thread to thread, and stays in a processor's cache meanwhile."""

_PARTIAL: Final = 206
_UNSATISFIABLE: Final = 416


class ByteSource(Protocol):
    """The bytes of one file from an offset on."""

    def readinto(self, buffer: memoryview) -> int:
        """Read some more bytes, as many as fit if there are so many; 0 means that there are no more.

        Raises SourceError, or IntegrityError where the source itself names another hash.
        """

    def abort(self) -> None:
        """End a blocked `readinto` from another thread; nothing may be read afterwards."""

    def close(self) -> None:
        """Close what is open; not while another thread is in `readinto`."""


@dataclass(frozen=True)
class SourceClient:
    """Access to sources: addresses and tokens of the hubs, retries and timeouts (seconds)."""

    hubs: Hubs = field(default_factory=Hubs)
    policy: TransferPolicy = field(default_factory=TransferPolicy)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], ca_bundle: Path | None = None) -> Self:
        """Read HF_ENDPOINT, HF_TOKEN and CIVITAI_TOKEN. Raises UsageError when one is malformed."""
        try:
            hubs = Hubs.from_environment(environment)
        except PodError as malformed:
            raise UsageError(str(malformed)) from None
        tls = tls_context("", ca_bundle) if ca_bundle else None
        return cls(hubs, TransferPolicy(limits=Limits(tls=tls)))

    def open(self, weight: WeightFile, offset: int = 0) -> ByteSource:
        """Begin to read a file; nothing moves before the first chunk is asked for."""
        if weight.origin["kind"] == "local":
            return LocalReading(weight, offset)
        try:
            request = request_for(weight.origin, self.hubs)
        except RefusedError as refused:
            raise _sentence(weight, refused) from None
        return RemoteReading(weight, request, self.policy, offset)


class LocalReading:
    """A file on this machine."""

    def __init__(self, weight: WeightFile, offset: int) -> None:
        self._weight = weight
        self._offset = offset
        self._file: FileIO | None = None

    def readinto(self, buffer: memoryview) -> int:
        """Read some more bytes."""
        try:
            if self._file is None:
                path = Path(self._weight.origin["path"])
                self._file = path.open("rb", buffering=0)  # `close` closes it
                self._file.seek(self._offset)
            return self._file.readinto(buffer)
        except OSError as unreadable:
            name = f"{self._weight.destination}: the local file {self._weight.origin['path']}"
            raise SourceError(f"{name} cannot be read: {unreadable.strerror}.") from None

    def abort(self) -> None:
        """A no-op: reads from a disk do not block for long."""

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()


class RemoteReading:
    """A file on a server. A broken connection is opened again, and the file goes on where it was cut."""

    def __init__(self, weight: WeightFile, request: Request, policy: TransferPolicy, offset: int) -> None:
        self._weight = weight
        self._request = request
        self._policy = policy
        self._offset = offset
        self._answer: Answer | None = None
        self._halted = threading.Event()
        self._asked: Future[Answer] | None = None
        self._settled = offset  # where failures were last forgotten
        self._patience = TransferBackoff(policy, self._halted, self._note)

    def readinto(self, buffer: memoryview) -> int:
        """Read some more bytes, over as many connections as that takes."""
        while self._offset < self._weight.size:
            self._refuse_halted()
            try:
                return self._read(buffer)
            except TransientError as failure:
                self.close()
                self._wait(failure)
            except RefusedError as refused:
                raise _sentence(self._weight, refused) from None
        return 0

    def abort(self) -> None:
        """End a blocked `readinto`."""
        self._halted.set()
        if asked := self._asked:
            asked.cancel()
        if answer := self._answer:
            answer.abort()

    def close(self) -> None:
        """End the connection."""
        if self._answer:
            self._answer.close()
        self._answer = None

    def _note(self, what: str) -> None:
        if what:
            log.info("%s: %s", self._weight.destination, what)

    def _wait(self, failure: TransientError) -> None:
        try:
            self._patience.wait(failure)
        except RefusedError as spent:
            raise _sentence(self._weight, spent) from None

    def _read(self, buffer: memoryview) -> int:
        if self._answer is None:
            self._answer = self._ask()
            # An abort during the request found no answer to close.
            self._refuse_halted()
            self._check(self._answer)
            self._skip(self._answer, buffer)
            self._rate = LeastRate(self._answer.host, self._policy.slowest, self._policy.stall)
        begun = time.monotonic()
        count = _receive(self._answer, buffer[: self._weight.size - self._offset])
        self._rate.took(count, time.monotonic() - begun)
        self._offset += count
        if self._offset >= self._settled + headway(self._weight.size):
            self._patience.moved()
            self._settled = self._offset
        return count

    def _ask(self) -> Answer:
        """Ask for the file. After `abort` this returns at once, and the requesting thread ends by itself."""
        self._asked = asked = Future[Answer]()
        arguments = (asked, self._request, self._policy.limits, self._headers())
        threading.Thread(target=_ask, args=arguments, name="asking", daemon=True).start()
        self._refuse_halted()
        try:
            return asked.result()
        except CancelledError:
            self._refuse_halted()
            raise

    def _refuse_halted(self) -> None:
        if self._halted.is_set():
            raise SourceError(f"{_name(self._weight)}: given up.")

    def _headers(self) -> dict[str, str]:
        return {"Range": f"bytes={self._offset}-"} if self._offset else {}

    def _check(self, answer: Answer) -> None:
        """Make sure that an answer goes on with the file that is listed. Raises RefusedError."""
        listed = self._weight.size
        if answer.status == _UNSATISFIABLE:
            raise RefusedError(
                f"has fewer bytes at {answer.host} than the {listed} that are listed (416): "
                "it was replaced there; correct its revision or what is listed"
            )
        check_type(answer.headers["Content-Type"], self._weight.destination, answer.host)
        linked = linked_sha256(answer)
        if linked and linked != self._weight.sha256:
            raise mismatch(self._weight, linked)
        start, size = _extent(answer)
        if size not in (None, listed):
            raise RefusedError(
                f"has {size} bytes at {answer.host}, but {listed} are listed: "
                "it was replaced there; correct its revision or what is listed"
            )
        if answer.status == _PARTIAL and start != self._offset:
            raise RefusedError(
                f"was asked for from byte {self._offset}, but {answer.host} sends from {start}"
            )

    def _skip(self, answer: Answer, buffer: memoryview) -> None:
        """Read past what is here already, where a server does not resume."""
        if answer.status == _PARTIAL or not self._offset:
            return
        self._note(
            f"{answer.host} does not resume (200 instead of 206): {self._offset} bytes are fetched again"
        )
        left = self._offset
        while left and not self._halted.is_set():
            left -= _receive(answer, buffer[:left])


def _ask(asked: Future[Answer], request: Request, limits: Limits, headers: Mapping[str, str]) -> None:
    """Send a request and hand over what came of it, or close it where the reader has been aborted."""
    try:
        answer = request.send(limits, headers)
    except BaseException as failure:  # noqa: BLE001 - raised where it is waited for
        with contextlib.suppress(InvalidStateError):
            asked.set_exception(failure)
        return
    try:
        asked.set_result(answer)
    except InvalidStateError:
        answer.close()


def mismatch(weight: WeightFile, found: str) -> IntegrityError:
    """Return the error for a file that is not the one that is locked; it names both hashes."""
    return IntegrityError(
        f"{_name(weight)} has sha256 {found}, but {weight.sha256} is locked; nothing of it was kept.",
        hint="It was replaced or damaged at its source, or the locked hash is wrong.",
    )


def _name(weight: WeightFile) -> str:
    return f"{weight.destination} ({weight.source})"


def _sentence(weight: WeightFile, refused: RefusedError) -> SourceError:
    """Return the pod's words, which go on after a file's name, as a sentence of ours."""
    return SourceError(f"{_name(weight)} {refused}.")


def _receive(answer: Answer, buffer: memoryview) -> int:
    count = answer.receive(buffer)
    if not count:
        raise TransientError(f"{answer.host}: the connection closed before the end")
    return count


def _extent(answer: Answer) -> tuple[int | None, int | None]:
    """Return where an answer's bytes begin in the file, and how long that is, as far as it says so."""
    if answer.status == _PARTIAL:
        return content_range(answer.headers["Content-Range"])
    return 0, number(answer.headers["Content-Length"])
