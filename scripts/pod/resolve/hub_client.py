"""Questions to the hubs: each is asked once a run, and patiently."""

from __future__ import annotations

import threading
from email.message import Message
from typing import TYPE_CHECKING, Any, TypeVar

from pod.net import content_range
from pod.net.http import RefusedError, TransientError
from pod.net.transfer_policy import TransferBackoff, TransferPolicy
from pod.resolve import safetensors_header
from pod.util import bounded_json
from pod.util.dataclass import replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from pod.net.hubs import Request
    from pod.resolve.safetensors_header import SafetensorsHeader

    Note = Callable[[str], None]

T = TypeVar("T")
# What hubs say of a repository of 20 000 files; parsing takes several times as much memory.
_LARGEST_ANSWER = 8 << 20  # bytes
_LONGEST_DISPOSITION = 4096  # bytes: its parser is quadratic


class HubClient:
    """Asks, and keeps the answers, the refusals too: twenty files of one repository are one question."""

    def __init__(self, policy: TransferPolicy, halted: threading.Event) -> None:
        self._policy = policy
        self._halted = halted
        self._lock = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}
        self._answers: dict[str, Any] = {}

    def json(
        self,
        request: Request,
        note: Note,
        tries: int | None = None,
        is_right: Callable[[bytes], bool] = lambda _: True,
    ) -> Any:
        """Return what an address answers; `tries` fewer than usual may do. Raises RefusedError.

        `is_right` tells whether it is what was announced; if not, it is asked for again.
        """
        with self._lock:
            turn = self._turns.setdefault(request.url, threading.Lock())
        with turn:
            if request.url not in self._answers:
                try:
                    self._answers[request.url] = self._patiently(
                        lambda: self._json(request, is_right), note, tries
                    )
                except RefusedError as error:
                    if tries:  # who has to know asks with more patience
                        raise
                    self._answers[request.url] = error
            answer = self._answers[request.url]
        if isinstance(answer, RefusedError):
            raise answer
        return answer

    def header(self, request: Request, note: Note) -> SafetensorsHeader:
        """Return the head of a .safetensors file. Raises RefusedError."""
        return self._patiently(lambda: safetensors_header.fetch(request, self._policy.limits), note)

    def name(self, request: Request, note: Note) -> str | None:
        """Return what a server calls a file (Content-Disposition, RFC 6266). Raises RefusedError."""

        def ask() -> str | None:
            with request.send(self._policy.limits, {"Range": "bytes=0-0"}) as answer:
                return called(answer.headers["Content-Disposition"])

        return self._patiently(ask, note)

    def size(self, request: Request, note: Note, tries: int) -> int | None:
        """Return how many bytes a file has at its source, None where it does not say. Raises RefusedError."""

        def ask() -> int | None:
            with request.send(self._policy.limits, {"Range": "bytes=0-0"}) as answer:
                return None if answer.status == content_range.UNSATISFIABLE else content_range.size(answer)

        return self._patiently(ask, note, tries)

    def _json(self, request: Request, is_right: Callable[[bytes], bool]) -> Any:
        with request.send(self._policy.limits) as answer:
            try:
                content = answer.read(_LARGEST_ANSWER)
                if not is_right(content):
                    raise TransientError(f"{answer.host} serves other bytes than what is listed")
                return bounded_json.parse(content)
            except ValueError:
                raise RefusedError(
                    f"cannot be resolved: {request.page} did not answer with JSON of a usual size"
                ) from None

    def _patiently(self, ask: Callable[[], T], note: Note, tries: int | None = None) -> T:
        policy = replace(self._policy, tries=min(tries or self._policy.tries, self._policy.tries))
        patience = TransferBackoff(policy, self._halted, note)
        while not self._halted.is_set():
            try:
                return ask()
            except TransientError as error:
                patience.wait(error)
        raise RefusedError("was not resolved before the stop")


def called(disposition: str | None) -> str | None:
    """Return the file's name in a Content-Disposition (RFC 6266); None where there is none to be read."""
    if not disposition or len(disposition) > _LONGEST_DISPOSITION:
        return None
    message = Message()
    message["Content-Disposition"] = "".join(letter for letter in disposition if letter not in "\r\n")
    try:
        return message.get_filename()
    except (ValueError, LookupError):  # parts numbered with thousands of digits, odd character sets
        return None
