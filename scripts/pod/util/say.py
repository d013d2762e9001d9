"""What the pod says: sentences on stderr, each on a line of its own, without a secret of the environment."""

from __future__ import annotations

import os
import sys

from pod.util.printable import printable
from pod.util.secret_variables import hidden

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_LINE = 4000  # characters


def line(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return a text as one line of a log: escaped, bounded, and without the values of secret variables."""
    return printable(hidden(text, environ), LONGEST_LINE)


def say(text: str) -> None:
    """Put a sentence into the pod's log."""
    print(line(f"podkiln: {text}"), file=sys.stderr, flush=True)
