"""How bench/gpu.py and the checks end: with one sentence, and with nothing of theirs left running."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

from gpu_kit.smi import MachineError

if TYPE_CHECKING:
    from collections.abc import Callable

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)  # a job that is cancelled, a rented machine's shell that is lost


class TerminatedError(KeyboardInterrupt):
    """A signal that ends programs: what cleans up after Ctrl-C cleans up after it too."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def run(program: str, body: Callable[[], int]) -> int:
    """Run a program; returns its exit code, after a sentence where the machine or a signal ended it."""
    before = {number: signal.signal(number, _raise) for number in _SIGNALS}
    try:
        return body()
    except MachineError as reason:
        print(f"{program}: {reason}", file=sys.stderr)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"{program}: {where}{error.strerror or error}.", file=sys.stderr)
    except KeyboardInterrupt as end:
        print(f"{program}: ended; what was done is written, and nothing is left running.", file=sys.stderr)
        return end.exit_code if isinstance(end, TerminatedError) else 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 1


def _raise(number: int, _frame: object) -> None:
    for each in (*_SIGNALS, signal.SIGINT):  # what is being ended is not interrupted
        signal.signal(each, signal.SIG_IGN)
    raise TerminatedError(number)
