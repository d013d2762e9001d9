"""`doctor`: what is wrong with this pod, or soon will be; one sentence each, the worst first.

    python3 -I -S /opt/podkiln doctor [--json]     all of it, looked at now
    python3 -I -S /opt/podkiln doctor --boot       what `decide` has not said already; start.sh runs it

It writes $PODKILN_RUN/doctor.json at boot, and ends with 0, or 1 where something is fatal.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from pod.checks import report
from pod.errors import ARGUMENTS_REFUSED, PodError
from pod.util import files
from pod.util.finding import FATAL, NOTE, WARNING, Finding, worst_first
from pod.util.say import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VARIABLE = "PODKILN_DOCTOR"
_SAID_BEFORE = ("memory", "volume")  # `decide` warned of these
_HINTS = {FATAL: "", WARNING: "warning: ", NOTE: ""}


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the command; returns its exit code. Raises PodError."""
    if unknown := [argument for argument in arguments if argument not in ("--boot", "--json")]:
        raise PodError(f"doctor takes --boot and --json only, but got {unknown[0]!r}.", ARGUMENTS_REFUSED)
    root = Path(environ.get("PODKILN_ROOT") or "/opt/podkiln")
    run = Path(environ.get("PODKILN_RUN") or "/run/podkiln")
    models = report.offers(root)
    if "--boot" in arguments:
        record = files.read_json(run / "decision.json", dict, "start the pod again")
        found = [*report.local(record, models, environ), *report.online(record, models, environ, root)]
        _write(run / "doctor.json", worst_first([*report.known(record), *found]))
        said = [one for one in found if one.level != WARNING or one.check not in _SAID_BEFORE]
        # By `decide` and `nodes --fetch`, and by the supervisor, which may not have started the worker yet.
        said = [one for one in said if one.check not in (report.NODES, report.WORKER)]
        _say(worst_first(said))
        return 0
    from pod import decision  # noqa: PLC0415 - at boot it has run already

    record = decision.decide(environ).to_json()
    found = worst_first(
        [
            *report.known(record),
            *report.local(record, models, environ),
            *report.online(record, models, environ, root),
        ]
    )
    if "--json" in arguments:
        print(json.dumps({"schema": 2, "findings": [one.to_json() for one in found]}, indent=1))
    else:
        _say(found)
        if all(one.level == NOTE for one in found):
            print("podkiln: nothing is wrong.", file=sys.stderr)
    return 1 if any(one.level == FATAL for one in found) else 0


def _say(findings: Sequence[Finding]) -> None:
    for one in findings:
        say(f"{_HINTS[one.level]}{one.message}.")


def _write(path: Path, findings: Sequence[Finding]) -> None:
    data = {"schema": 2, "findings": [one.to_json() for one in findings]}
    try:
        files.write_json(path, data)
    except OSError as error:
        raise PodError(f"{path} cannot be written ({error.strerror}).") from None
