"""Ctrl-C and SIGTERM: the first ends the work and cleans up, and no later one breaks off the cleaning up.

A second Ctrl-C says what is being waited for; a third ends the process at once and says what that leaves.
Cleaning up takes a bounded time: each request has a limit of a few seconds (podkiln.registry.transport).
Later SIGTERMs are ignored: what sends them does not wait for long, and kills by itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Final

from podkiln.errors import InterruptedByUserError, PodkilnError, Terminated, TerminatedError
from podkiln.util.open_uploads import UPLOADS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_FORCE: Final = 3  # the Ctrl-C that ends the process at once
_SHOW_CURSOR: Final = b"\x1b[?25h"  # a progress bar hides it (xterm, DECTCEM)


class Interruptions:
    """What signals have come, and whether they may break off what the main thread is doing."""

    def __init__(self) -> None:
        self._ctrl_c = 0
        self._ending = False
        self._held = 0
        self._waiting: type[KeyboardInterrupt] | None = None

    def install(self) -> None:
        """Handle SIGINT and SIGTERM from now on; in the main thread. A SIGINT that is ignored stays ignored.

        Shells ignore it for what they start in the background: Ctrl-C is not meant for that (POSIX sh, 2.11).
        """
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            signal.signal(signal.SIGINT, self.take)
        signal.signal(signal.SIGTERM, self.take)

    def take(self, number: int, _frame: FrameType | None) -> None:
        """Handle one signal."""
        self._ctrl_c += number == signal.SIGINT
        if not self._ending:
            self._ending = True
            kind = KeyboardInterrupt if number == signal.SIGINT else Terminated
            if not self._held:
                raise kind
            self._waiting = kind
        elif number == signal.SIGINT and self._ctrl_c >= _FORCE:
            _end_at_once()
        elif number == signal.SIGINT:
            _say(f"podkiln: {_being_done()}; another Ctrl-C ends at once and leaves them there.\n")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let nothing break off what is done inside; an interruption that came is raised at its end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if not self._held and self._waiting:
            waiting, self._waiting = self._waiting, None
            raise waiting


INTERRUPTIONS: Final = Interruptions()


def error_of(end: BaseException) -> PodkilnError:
    """Return the error for an interruption: what it was, and truly what it left behind."""
    left = _left()
    if isinstance(end, Terminated):
        return TerminatedError(f"Ended by SIGTERM; {left}.")
    return InterruptedByUserError(f"Interrupted; {left}.")


def _left() -> str:
    hosts = UPLOADS.hosts()
    if not hosts:
        return "nothing half-made was left behind"
    stay = (
        "stay until the registry removes them"
        if sum(hosts.values()) > 1
        else "stays until the registry removes it"
    )
    return f"{_counted(hosts)} could not be deleted there, and {stay} by itself"


def _being_done() -> str:
    hosts = UPLOADS.hosts()
    return f"Deleting {_counted(hosts)}" if hosts else "Cleaning up what is half-made"


def _counted(hosts: dict[str, int]) -> str:
    return " and ".join(
        f"{count} half-made upload{'s' * (count > 1)} at {host}" for host, count in hosts.items()
    )


def _end_at_once() -> None:
    """End without cleaning up any further; what threads are in the middle of ends with the process."""
    hosts = UPLOADS.hosts()
    left = f"{_counted(hosts)} may have been left behind" if hosts else "files half-made may be left behind"
    _say(f"podkiln: Interrupted three times and ended at once; {left}.\n")
    if os.isatty(2):
        os.write(2, _SHOW_CURSOR)
    os._exit(InterruptedByUserError.exit_code)


def _say(text: str) -> None:
    """Write to stderr past all buffers: the interrupted code may be in the middle of writing to one."""
    with contextlib.suppress(OSError):
        os.write(2, text.encode())
