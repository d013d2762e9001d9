"""`volume`: where ComfyUI's folders lie in this pod, and which of them outlive it.

python3 -I -S /opt/podkiln volume     says what `decide` would find, and changes nothing
"""

from __future__ import annotations

import os

from pod.decision import inspect_volume
from pod.errors import ARGUMENTS_REFUSED, PodError
from pod.util.printable import printable
from pod.util.say import LONGEST_LINE, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Say where everything lies; returns 0. Raises PodError."""
    if arguments:
        raise PodError(f"volume takes no arguments, but got {arguments[0]!r}.", ARGUMENTS_REFUSED)
    volume = inspect_volume(environ)
    for name, value in volume.to_json().items():
        shown = ", ".join(value) if isinstance(value, list | dict) else value
        print(printable(f"{name:<13} {shown or 'none'}", LONGEST_LINE))
    for sentence in (*volume.warnings, *volume.reasons):
        say(sentence)
    return 0
