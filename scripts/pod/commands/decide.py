"""`decide`: read the pod, choose ComfyUI's arguments, and write down what was chosen and why.

python3 -I -S /opt/podkiln decide              writes what start.sh reads (pod.decision), says why on stderr
python3 -I -S /opt/podkiln decide --explain    prints it as JSON on stdout, and writes nothing
"""

from __future__ import annotations

import os
import sys

from pod.decision import RUN, decide, refuse, say, write
from pod.errors import INTERNAL, PodError
from pod.util import child_processes
from pod.util.stopwatch import Stopwatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STARTS = "PODKILN_STARTS"  # set by start.sh, which holds the lock: what runs then is of an earlier start


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the command; returns its exit code. Raises PodError."""
    unknown = [argument for argument in arguments if argument != "--explain"]
    if unknown:
        raise PodError(f"decide takes --explain only, but got {unknown[0]!r}.", INTERNAL)
    watch = Stopwatch()
    if STARTS in environ:
        from pod.util.say import say as tell  # noqa: PLC0415 - few starts come after one that was killed

        for name in child_processes.end_left_over(environ.get("PODKILN_RUN") or RUN):
            tell(f"{name} of an earlier start was still running, and is ended.")
    decision = decide(environ, write=not arguments, watch=watch)
    say(decision)
    if arguments:
        import json  # noqa: PLC0415 - loaded already, see decide()

        from pod.checks import report  # noqa: PLC0415 - a start does without it

        record = decision.to_json()
        record["findings"] = [finding.to_json() for finding in report.offline(record, environ)]
        json.dump(record, sys.stdout, indent=2)
        print()
    else:
        refuse(decision, environ)
        write(decision, environ, watch.seconds)
    return 0
