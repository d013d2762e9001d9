"""`decide`: read the pod, choose ComfyUI's arguments, and write down what was chosen and why.

It writes $PODKILN_RUN/decision.json, $PODKILN_RUN/comfyui.args (each argument followed by a NUL byte, for
bash's `mapfile -d ''`) and what pod.storage.handover describes, and says the reasons on stderr.
With --explain it prints the JSON on stdout and writes nothing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pod.failure import INTERNAL, UNFIT, PodError
from pod.keeping import children
from pod.machine import smi
from pod.stopwatch import Stopwatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from pod.flags.arguments import Parsed
    from pod.flags.choice import Decision
    from pod.flags.rules import Rules

RUN = "/run/podkiln"
STARTS = "PODKILN_STARTS"  # set by start.sh, which holds the lock: what runs then is of an earlier start
_MOST_DEVICES = 32  # as ComfyUI counts them


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the command; returns its exit code. Raises PodError."""
    unknown = [argument for argument in arguments if argument != "--explain"]
    if unknown:
        raise PodError(f"decide knows --explain and nothing else; {unknown[0]!r} is not that.", INTERNAL)
    watch = Stopwatch()
    if STARTS in environ:
        from pod.saying import say as tell  # noqa: PLC0415 - few starts come after one that was killed

        for name in children.end_left_over(environ.get("PODKILN_RUN") or RUN):
            tell(f"{name} of an earlier start was still running, and is ended.")
    decision = decide(environ, write=not arguments, watch=watch)
    say(decision)
    if arguments:
        import json  # noqa: PLC0415 - loaded already, see decide()

        from pod import doctor  # noqa: PLC0415 - a start does without it

        record = decision.to_json()
        record["findings"] = [finding.to_json() for finding in doctor.offline(record, environ)]
        json.dump(record, sys.stdout, indent=2)
        print()
    else:
        refuse(decision, environ)
        write(decision, environ, watch.seconds)
    return 0


def decide(environ: Mapping[str, str], *, write: bool = False, watch: Stopwatch | None = None) -> Decision:
    """Read everything there is to read, and choose. Raises PodError.

    nvidia-smi takes longest by far, so it is started first, and all else is loaded and read beside it. With
    `write` the folders that ComfyUI needs are made on the volume. `watch` notes how long the parts take.
    """
    watch = watch or Stopwatch()
    limit = smi.limit(environ)
    with smi.Question(smi.CARDS, limit) as cards:
        from pod import settings  # noqa: PLC0415 - beside nvidia-smi
        from pod.doors import access  # noqa: PLC0415 - beside nvidia-smi
        from pod.examining import ports  # noqa: PLC0415 - beside nvidia-smi
        from pod.flags import choice, rules, selection  # noqa: PLC0415 - beside nvidia-smi
        from pod.flags.arguments import check_folders  # noqa: PLC0415 - beside nvidia-smi
        from pod.keeping import ping  # noqa: PLC0415 - beside nvidia-smi
        from pod.machine import gpu, memory, presence  # noqa: PLC0415 - beside nvidia-smi
        from pod.storage import inspection, overlay  # noqa: PLC0415 - beside nvidia-smi

        root = Path(environ.get("PODKILN_ROOT") or "/opt/podkiln")
        known = rules.load(root / "flags.json")
        offers = selection.load(root / "models.json")
        asked = settings.read(environ, known, {offer.env for offer in offers})
        asked = selection.checked(asked, offers, root)
        user = known.catalogue.parse_text(asked.arguments, "COMFYUI_ARGS")
        site = overlay.site(environ.get("PODKILN_VENV") or overlay.VENV)
        missing = _missing_modules(known, user, site)
        where = inspection.Asked.of(environ, asked.workspace, known.workspace, tuple(missing))
        ways = access.read(environ)
        with inspection.Question(where, write=write) as volumes:
            pod_memory = memory.read(
                Path(environ.get("PODKILN_CGROUP_ROOT") or memory.CGROUP_ROOT),
                Path(environ.get("PODKILN_MEMINFO") or memory.MEMINFO),
            )
            seen, said = _as_comfyui_sees(environ, user)
            found = gpu.detect(
                cards, seen, limit, witness=presence.witness(environ), said=said, unified=known.unified_cards
            )
            watch.lap("gpu")
            volume = volumes.answer()
        if volume.answers:
            check_folders(user.given, "COMFYUI_ARGS")
        decision = choice.choose(
            known,
            asked,
            user,
            found,
            pod_memory,
            offers,
            str(root),
            access=ways,
            volume=volume,
            has_module=lambda name: name not in missing or volume.has(name, missing[name]),
        )
        own = children.group(environ.get("PODKILN_RUN") or RUN, "comfyui")
        taken = ports.examine(decision.args, decision.access.to_json(), decision.port, decision.listen, own)
        decision = decision.with_findings(taken)
        ping.read(environ, decision.port, ways.ports(decision.port))  # refuses what it cannot understand
        watch.lap("flags")
        return decision


def _missing_modules(known: Rules, user: Parsed, site: str) -> dict[str, str]:
    """Return modules that arguments need and the image lacks, with the names of their packages."""
    names = {given.flag.name for given in user.given} | {*known.common} & {*known.catalogue.flags}
    flags = [known.catalogue.flags[name] for name in names]
    needed = {flag.module: flag.package or flag.module for flag in flags if flag.module}
    if not needed:
        return {}
    from pod.storage import requirement  # noqa: PLC0415 - loaded already

    there = requirement.modules(tuple(needed), site)
    return {module: package for module, package in needed.items() if module not in there}


def _as_comfyui_sees(environ: Mapping[str, str], user: Parsed) -> tuple[Mapping[str, str], str | None]:
    """Return the environment with the CUDA_VISIBLE_DEVICES that ComfyUI sets, and the flag that says so.

    Both flags are read as main.py of 0.33.0 reads them: --default-device N puts N before all others.
    """
    from pod.machine import visible  # noqa: PLC0415 - beside nvidia-smi

    only, first = user.value("--cuda-device"), user.value("--default-device")
    if only is not None:
        return {**environ, "CUDA_VISIBLE_DEVICES": only}, f"--cuda-device {visible.shown(only)}".rstrip()
    if first is not None:
        others = [str(number) for number in range(_MOST_DEVICES) if number != int(first)]
        order = ",".join([str(int(first)), *others])
        return {**environ, "CUDA_VISIBLE_DEVICES": order}, f"--default-device {first}"
    return environ, None


def refuse(decision: Decision, environ: Mapping[str, str]) -> None:
    """Raise PodError where ComfyUI could not work here; PODKILN_DOCTOR=warn starts it all the same."""
    from pod.saying import line  # noqa: PLC0415 - beside nvidia-smi, see decide()

    fatal = [finding.says for finding in decision.findings if finding.level == "fatal"]
    for reason in fatal:
        if environ.get("PODKILN_DOCTOR", "").strip().lower() != "warn":
            message = f"ComfyUI cannot work here: {reason} (PODKILN_DOCTOR=warn starts it all the same)."
            raise PodError(message, UNFIT)
        print(line(f"podkiln: warning: {reason}."), file=sys.stderr)


def say(decision: Decision) -> None:
    """Print reasons and warnings for the pod's log, and the command line that they lead to."""
    for sentence in sentences(decision.to_json()):
        print(sentence, file=sys.stderr)


def sentences(record: Mapping[str, Any]) -> list[str]:
    """Return what is said about a decision, from its entry in decision.json."""
    import shlex  # noqa: PLC0415 - loaded already, see decide()

    from pod.saying import line  # noqa: PLC0415 - the same

    said = [
        *(f"podkiln: warning: {warning}" for warning in record["warnings"]),
        *(f"podkiln: {reason}" for reason in record["reasons"]),
        f"podkiln: ComfyUI's arguments: {shlex.join(record['args'])}",
    ]
    return [line(sentence) for sentence in said]


def write(decision: Decision, environ: Mapping[str, str], seconds: Mapping[str, float]) -> None:
    """Write what start.sh reads, and begin boot.json. Raises PodError where the run folder refuses."""
    import json  # noqa: PLC0415 - loaded already, see decide()

    from pod.storage import handover  # noqa: PLC0415 - the same

    run = Path(environ.get("PODKILN_RUN") or "/run/podkiln")
    try:
        run.mkdir(parents=True, exist_ok=True)
        handover.replace(run / "decision.json", json.dumps(decision.to_json(), indent=2) + "\n")
        handover.replace(run / "comfyui.args", "".join(f"{word}\0" for word in decision.args))
        handover.replace(run / "boot.json", json.dumps({"schema": 1, "seconds": dict(seconds)}) + "\n")
        for told in run.glob("fetch*.json"):  # by the fetches of the container's last run
            told.unlink(missing_ok=True)
        handover.write(decision.volume, environ, Path(environ.get("PODKILN_ROOT") or "/opt/podkiln"), run)
    except OSError as error:
        message = (
            f"{run} cannot be written ({error.strerror}): make it a writable directory, or set PODKILN_RUN."
        )
        raise PodError(message, INTERNAL) from None
