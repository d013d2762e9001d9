"""A push as a process of its own, so that it can be interrupted as the command is: LAYOUT, REFERENCE."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_ROOT), str(_ROOT / "scripts")]

from podkiln.errors import PodkilnError  # noqa: E402
from podkiln.oci import layout  # noqa: E402 - the path comes first
from podkiln.oci.reference import Reference  # noqa: E402
from podkiln.registry import RegistryOptions, push  # noqa: E402
from podkiln.util import console  # noqa: E402 - the path comes first
from podkiln.util.interrupts import INTERRUPTIONS, error_of  # noqa: E402


def main(path: str, reference: str) -> int:
    """Push an image, and end as the command line does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests themselves were started by
    INTERRUPTIONS.install()
    try:
        push(
            layout.read(Path(path)),
            Reference.parse(reference),
            settings=RegistryOptions(login=lambda _: None),
        )
    except KeyboardInterrupt as end:
        error: PodkilnError = error_of(end)
    except PodkilnError as failure:
        error = failure
    else:
        return 0
    console.failure(error)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
