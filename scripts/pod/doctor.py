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

from pod.examining import needs
from pod.examining.diagnosis import FATAL, NOTE, WARNING, Finding, worst_first
from pod.failure import ARGUMENTS_REFUSED, DATA_UNREADABLE, PodError
from pod.saying import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

VARIABLE = "PODKILN_DOCTOR"
_SAID_BEFORE = ("memory", "volume")  # `decide` warned of these
_HINTS = {FATAL: "", WARNING: "warning: ", NOTE: ""}


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the command; returns its exit code. Raises PodError."""
    if unknown := [argument for argument in arguments if argument not in ("--boot", "--json")]:
        raise PodError(f"doctor knows --boot and --json; {unknown[0]!r} is neither.", ARGUMENTS_REFUSED)
    root = Path(environ.get("PODKILN_ROOT") or "/opt/podkiln")
    run = Path(environ.get("PODKILN_RUN") or "/run/podkiln")
    models = _load(root / "models.json")["models"]
    if "--boot" in arguments:
        record = _load(run / "decision.json")
        found = [*_offline(record, models, environ), *_online(record, models, environ, root)]
        _write(run / "doctor.json", worst_first([*_known(record), *found]))
        said = [one for one in found if one.level != WARNING or one.about not in _SAID_BEFORE]
        _say(worst_first(said))
        return 0
    from pod import decide  # noqa: PLC0415 - at boot it has run already

    record = decide.decide(environ).to_json()
    found = worst_first(
        [*_known(record), *_offline(record, models, environ), *_online(record, models, environ, root)]
    )
    if "--json" in arguments:
        print(json.dumps({"schema": 1, "findings": [one.to_json() for one in found]}, indent=1))
    else:
        _say(found)
        if all(one.level == NOTE for one in found):
            print("podkiln: nothing is wrong.", file=sys.stderr)
    return 1 if any(one.level == FATAL for one in found) else 0


def offline(record: Mapping[str, Any], environ: Mapping[str, str]) -> list[Finding]:
    """Return all that can be found out without a network: what --explain shows. Raises PodError."""
    models = _load(Path(environ.get("PODKILN_ROOT") or "/opt/podkiln") / "models.json")["models"]
    return worst_first([*_known(record), *_offline(record, models, environ)])


def _known(record: Mapping[str, Any]) -> list[Finding]:
    return [Finding.from_json(each) for each in record["findings"]]


def _offline(
    record: Mapping[str, Any], models: Sequence[Mapping[str, Any]], environ: Mapping[str, str]
) -> list[Finding]:
    from pod.flags import rules  # noqa: PLC0415 - `decide` has loaded it, except at boot

    known = rules.load(Path(environ.get("PODKILN_ROOT") or "/opt/podkiln") / "flags.json")
    volume = record["volume"]
    others = (environ.get("PODKILN_VOLUME") or "/runpod-volume", volume["root"], volume["workspace"])
    roots = [
        environ.get("PODKILN_BAKED") or "/opt/models",
        *(f"{other}/models" for other in others),
        *volume["models"],
    ]
    found = [
        *(Finding(WARNING, "volume", says) for says in volume["problems"]),
        *needs.memory(record, models, known.reaches),
    ]
    return [*found, *needs.room(record, models, roots)] if volume["answers"] else found


def _online(
    record: Mapping[str, Any], models: Sequence[Mapping[str, Any]], environ: Mapping[str, str], root: Path
) -> list[Finding]:
    """Ask the network, where something is to come from it."""
    from pod.examining import network  # noqa: PLC0415 - explaining needs none of it
    from pod.fetching.sources import Hubs  # noqa: PLC0415 - the same

    hubs = Hubs.from_environment(environ)
    known = {"huggingface": hubs.huggingface, "civitai": hubs.civitai}
    kinds = {source["kind"]: source.get("url", "") for source in needs.sources(record, models)}
    addresses = [known.get(kind, url) for kind, url in kinds.items()]
    if record.get("wishes"):
        addresses += known.values()
    try:
        made: float | None = (root / "manifest.json").stat().st_mtime
    except OSError:
        made = None
    return network.examine([address for address in addresses if address], made)


def _say(findings: Sequence[Finding]) -> None:
    for one in findings:
        say(f"{_HINTS[one.level]}{one.says}.")


def _write(path: Path, findings: Sequence[Finding]) -> None:
    from pod.storage import handover  # noqa: PLC0415 - at boot only

    data = {"schema": 1, "findings": [one.to_json() for one in findings]}
    try:
        handover.replace(path, json.dumps(data, indent=1) + "\n")
    except OSError as error:
        raise PodError(f"{path} cannot be written ({error.strerror}).") from None


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise PodError(
            f"{path} cannot be read ({error.strerror}): start the pod again.", DATA_UNREADABLE
        ) from None
    except ValueError as error:
        raise PodError(f"{path} is no JSON ({error}): start the pod again.", DATA_UNREADABLE) from None
