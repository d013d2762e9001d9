"""`python -m podkiln`: what build.py runs once .venv exists."""

import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_OURS = {"podkiln", "pod", "comfy", "build"}


def take_interrupts() -> None:
    """Let Ctrl-C end us from now on; build.py blocks it while Python starts. One that is ignored stays so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end_at_once)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _end_at_once(_number: int, _frame: object) -> None:
    """End before or after the work: an exception would come out of whatever import it happens to hit."""
    os.write(2, b"podkiln: Interrupted; nothing half-made was left behind.\n")
    os._exit(130)


def run(python: str | None) -> int:
    """Run the command line; return its exit code.

    Args:
        python: The interpreter that build.py ran in, to repair the environment with; None where that was
            tried already, or where build.py did not start us.
    """
    try:
        from podkiln.cli import main  # noqa: PLC0415 - a package that it needs may be missing
        from podkiln.util.console import keep_streams  # noqa: PLC0415
        from podkiln.util.interrupts import INTERRUPTIONS  # noqa: PLC0415

        keep_streams()
        INTERRUPTIONS.install()
        return main(sys.argv[1:])
    except KeyboardInterrupt as end:  # outside of what main() guards: nothing was begun, or all is done
        from podkiln.util import console, interrupts  # noqa: PLC0415

        ended = interrupts.error_of(end)
        console.failure(ended)
        return ended.exit_code
    except ImportError as broken:
        missing = (broken.name or "").partition(".")[0]
        if not missing or missing in _OURS:
            raise
        if python:
            _repair(python)
        sys.stderr.write(
            f"podkiln: {missing} cannot be imported: {broken}.\n    rm -r .venv and try again.\n"
        )
        return 1


def _repair(python: str) -> None:
    """Replace this process by build.py, which makes .venv again and starts podkiln again."""
    try:
        made = (Path(sys.prefix) / "podkiln-stamp").stat().st_mtime_ns
    except OSError:  # another run is making it anew
        made = 0
    os.environ["PODKILN_REPAIR"] = str(made)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # while that Python starts, too
    os.execv(python, [python, str(ROOT / "build.py"), *sys.argv[1:]])  # noqa: S606


if __name__ == "__main__":
    take_interrupts()
    code = run(os.environ.pop("PODKILN_BUILD", None))
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, _end_at_once)  # Python's own end would show a traceback
    sys.exit(code)
