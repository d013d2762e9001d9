"""`python -m podkiln`: what build.py runs once .venv exists."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_OURS = {"podkiln", "pod", "comfy", "build"}


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
    os.execv(python, [python, str(ROOT / "build.py"), *sys.argv[1:]])  # noqa: S606


if __name__ == "__main__":
    sys.exit(run(os.environ.pop("PODKILN_BUILD", None)))
