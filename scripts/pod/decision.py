"""Read the pod, choose ComfyUI's arguments, and write down what was chosen and why.

What is written: $PODKILN_RUN/decision.json, $PODKILN_RUN/comfyui.args (each argument followed by a NUL byte,
for bash's `mapfile -d ''`) and what pod.volume.run_files describes.
"""

from __future__ import annotations

import sys

from pod.errors import INTERNAL, UNFIT, PodError
from pod.hardware import nvidia_smi
from pod.util import child_processes, serving
from pod.util.stopwatch import Stopwatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pod.flags.arguments import ParsedArgs
    from pod.flags.decision import Decision
    from pod.flags.rules import Rules
    from pod.volume.run_files import RunNodes
    from pod.volume.volume import Volume

RUN = "/run/podkiln"
HOSTS = "/etc/hosts"  # hosts(5)
_MOST_DEVICES = 32  # as ComfyUI counts them


def decide(environ: Mapping[str, str], *, write: bool = False, watch: Stopwatch | None = None) -> Decision:
    """Read everything there is to read, and choose. Raises PodError.

    With `write` the folders that ComfyUI needs are made on the volume. `watch` notes how long the parts take.
    """
    watch = watch or Stopwatch()
    if serving.has_comfyui(environ):
        return _of_comfyui(environ, watch, write=write)
    from pod import server_decision  # noqa: PLC0415 - other images do without it

    return server_decision.decide(environ, environ.get("PODKILN_RUN") or RUN, watch, write=write)


def _of_comfyui(environ: Mapping[str, str], watch: Stopwatch, *, write: bool) -> Decision:
    """Choose ComfyUI's arguments. Raises PodError.

    nvidia-smi takes longest by far, so it is started first, and all else is loaded and read beside it.
    """
    limit = nvidia_smi.limit(environ)
    with nvidia_smi.NvidiaSmiQuery(nvidia_smi.CARDS, limit) as cards:
        from pathlib import Path  # noqa: PLC0415 - costs 10 ms, beside nvidia-smi

        from pod.flags import (  # noqa: PLC0415 - beside nvidia-smi
            choose,
            model_selection,
            node_selection,
            rules,
            settings,
        )
        from pod.flags.arguments import check_folders  # noqa: PLC0415 - beside nvidia-smi
        from pod.hardware import gpu, gpu_presence, memory  # noqa: PLC0415 - beside nvidia-smi
        from pod.services import config, ping_config  # noqa: PLC0415 - beside nvidia-smi
        from pod.util import ports  # noqa: PLC0415 - beside nvidia-smi
        from pod.util.dataclass import replace  # noqa: PLC0415 - loaded already
        from pod.volume import inspect, package_overlay  # noqa: PLC0415 - beside nvidia-smi

        root = Path(environ.get("PODKILN_ROOT") or "/opt/podkiln")
        known = rules.load(root / "flags.json")
        offers = model_selection.load(root / "models.json")
        asked = settings.read(environ, known, {offer.env for offer in offers})
        asked = model_selection.checked(asked, offers, root)
        nodes = node_selection.load(root / node_selection.FILE)
        node_selection.check_names(asked.nodes, nodes)
        user = known.catalogue.parse_text(asked.arguments, "COMFYUI_ARGS")
        site = package_overlay.site(environ.get("PODKILN_VENV") or package_overlay.VENV)
        missing = _missing_modules(known, user, site)
        where = inspect.ProbeOptions.of(environ, asked.workspace, known.workspace, tuple(missing))
        given = [one.values for one in user.given if one.flag.name == "--extra-model-paths-config"]
        links = tuple(path for values in given for path in values)
        where = replace(where, links=links, base=user.value(node_selection.BASE))
        ways = config.read(environ)
        with inspect.VolumeProbe(where, write=write) as volumes:
            pod_memory = memory.read(
                Path(environ.get("PODKILN_CGROUP_ROOT") or memory.CGROUP_ROOT),
                Path(environ.get("PODKILN_MEMINFO") or memory.MEMINFO),
            )
            seen, said = _as_comfyui_sees(environ, user)
            found = gpu.detect(
                cards,
                seen,
                limit,
                witness=gpu_presence.witness(environ),
                said=said,
                unified=known.unified_cards,
            )
            watch.lap("gpu")
            volume = volumes.answer()
        from pod.flags import places  # noqa: PLC0415 - beside nvidia-smi

        places.check(user.given, "COMFYUI_ARGS")
        if volume.responsive:
            check_folders(user.given, "COMFYUI_ARGS")
            if links:
                from pod.volume import foreign_layouts  # noqa: PLC0415 - loaded already

                foreign_layouts.refuse_unreadable(links, "COMFYUI_ARGS", site)
        facts = choose.Facts(
            found,
            pod_memory,
            ways,
            volume,
            str(root),
            has_module=lambda name: name not in missing or volume.has(name, missing[name]),
        )
        decision = choose.choose(known, facts, choose.Asked(asked, user, offers, nodes))
        config.check_tls(decision.args)
        decision = decision.with_args(_with_loopback_name(decision.args))
        own = child_processes.group(environ.get("PODKILN_RUN") or RUN, "comfyui")
        taken = ports.examine(decision.args, decision.access.to_json(), decision.port, decision.listen, own)
        decision = decision.with_findings([*taken, *places.outside(user, volume)])
        ping_config.read(
            environ, decision.port, ways.ports(decision.port)
        )  # refuses what it cannot understand
        watch.lap("flags")
        return decision


def _with_loopback_name(args: tuple[str, ...]) -> tuple[str, ...]:
    """Return ComfyUI's arguments with a `--listen localhost` that it can look up.

    Without that name in /etc/hosts ComfyUI would not come up, and where it means ::1 alone the door would not
    find it. 127.1 is the same address (inet_aton(3)), and no numeric one to ComfyUI-Manager (flags.choose).
    """
    if "localhost" not in args:
        return args
    try:
        with open(HOSTS, "rb") as file:  # noqa: PTH123 - see decide()
            lines = file.read().split(b"\n")
    except OSError:
        lines = []
    names = (line.partition(b"#")[0].split() for line in lines)
    if any(row[:1] == [b"127.0.0.1"] and b"localhost" in row[1:] for row in names):
        return args
    return tuple(
        "127.1" if word == "localhost" and args[at - 1] == "--listen" else word
        for at, word in enumerate(args)
    )


def _missing_modules(known: Rules, user: ParsedArgs, site: str) -> dict[str, str]:
    """Return modules that arguments need and the image lacks, with the names of their packages."""
    names = {given.flag.name for given in user.given} | {*known.common} & {*known.catalogue.flags}
    flags = [known.catalogue.flags[name] for name in names]
    needed = {flag.module: flag.package or flag.module for flag in flags if flag.module}
    if not needed:
        return {}
    from pod.volume import node_requirements  # noqa: PLC0415 - loaded already

    there = node_requirements.modules(tuple(needed), site)
    return {module: package for module, package in needed.items() if module not in there}


def _as_comfyui_sees(environ: Mapping[str, str], user: ParsedArgs) -> tuple[Mapping[str, str], str | None]:
    """Return the environment with the CUDA_VISIBLE_DEVICES that ComfyUI sets, and the flag that says so.

    Both flags are read as main.py of 0.33.0 reads them: --default-device N puts N before all others.
    """
    from pod.hardware import cuda_visible_devices as cuda  # noqa: PLC0415 - beside nvidia-smi
    from pod.util.printable import shown  # noqa: PLC0415 - the same

    # Empty, as compose's `${X:-}` sets it; start.sh unsets it then.
    if not environ.get(cuda.VARIABLE, "x").strip():
        environ = {name: value for name, value in environ.items() if name != cuda.VARIABLE}
    only, first = user.value("--cuda-device"), user.value("--default-device")
    if only is not None:
        return {**environ, cuda.VARIABLE: only}, f"--cuda-device {shown(only, cuda.SHOWN)}".rstrip()
    if first is not None:
        others = [str(number) for number in range(_MOST_DEVICES) if number != int(first)]
        order = ",".join([str(int(first)), *others])
        return {**environ, cuda.VARIABLE: order}, f"--default-device {first}"
    return environ, None


def inspect_volume(environ: Mapping[str, str]) -> Volume:
    """Return where everything lies at this moment, changing nothing. Raises PodError."""
    from pathlib import Path  # noqa: PLC0415 - see decide()

    from pod.flags import rules, settings  # noqa: PLC0415 - only by hand
    from pod.volume import inspect  # noqa: PLC0415 - only by hand

    known = rules.load(Path(environ.get("PODKILN_ROOT") or "/opt/podkiln") / "flags.json")
    if serving.has_comfyui(environ):
        workspace, probe = settings.read(environ, known).workspace, inspect.VolumeProbe
    else:
        from pod.volume.inspect_plain import PlainVolumeProbe  # noqa: PLC0415 - the same

        workspace, probe = settings.read_for_server(environ, known).workspace, PlainVolumeProbe
    with probe(inspect.ProbeOptions.of(environ, workspace, known.workspace), write=False) as question:
        return question.answer()


def refuse(decision: Decision, environ: Mapping[str, str]) -> None:
    """Raise PodError where the pod's program could not work; PODKILN_DOCTOR=warn starts it all the same."""
    from pod.util.say import line  # noqa: PLC0415 - beside nvidia-smi, see decide()

    fatal = [finding.message for finding in decision.findings if finding.level == "fatal"]
    for reason in fatal:
        if environ.get("PODKILN_DOCTOR", "").strip().lower() != "warn":
            program = "ComfyUI" if serving.has_comfyui(environ) else "The model server"
            message = f"{program} cannot work here: {reason} (PODKILN_DOCTOR=warn starts it all the same)."
            raise PodError(message, UNFIT)
        print(line(f"podkiln: warning: {reason}."), file=sys.stderr)


def say(decision: Decision) -> None:
    """Print reasons and warnings for the pod's log, and the command line that they lead to."""
    for sentence in sentences(decision.to_json()):
        print(sentence, file=sys.stderr)


def sentences(record: Mapping[str, Any]) -> list[str]:
    """Return what is said about a decision, from its entry in decision.json."""
    import shlex  # noqa: PLC0415 - loaded already, see decide()

    from pod.util.say import line  # noqa: PLC0415 - the same

    said = [
        *(f"podkiln: warning: {warning}" for warning in record["warnings"]),
        *(f"podkiln: {reason}" for reason in record["reasons"]),
    ]
    if record.get("serve") != serving.DIFFUSERS:
        said.append(f"podkiln: ComfyUI's arguments: {shlex.join(record['args'])}")
    return [line(sentence) for sentence in said]


def _of_nodes(decision: Decision) -> RunNodes:
    """Return what the chosen nodes of the image need: nobody asks for most of it."""
    from pod.flags import node_selection  # noqa: PLC0415 - loaded already, see decide()
    from pod.volume.run_files import RunNodes  # noqa: PLC0415 - the same

    nodes, volume = decision.nodes, decision.volume
    return RunNodes(
        nodes.environment(volume.workspace, volume.local),
        tuple(nodes.folders(volume.workspace)),
        node_selection.nodes_folder(volume.local) if nodes.fetches else None,
        listed=not nodes.by_user and nodes.arguments(volume.nodes) != (),
    )


def write(decision: Decision, environ: Mapping[str, str], seconds: Mapping[str, float]) -> None:
    """Write what start.sh reads, and begin boot.json. Raises PodError where the run folder refuses."""
    import json  # noqa: PLC0415 - loaded already, see decide()
    from pathlib import Path  # noqa: PLC0415 - the same

    from pod.util import files  # noqa: PLC0415 - the same
    from pod.volume import run_files  # noqa: PLC0415 - the same

    run = Path(environ.get("PODKILN_RUN") or "/run/podkiln")
    try:
        run.mkdir(parents=True, exist_ok=True)
        files.replace(run / "decision.json", json.dumps(decision.to_json(), indent=2) + "\n")
        files.replace(run / "comfyui.args", "".join(f"{word}\0" for word in decision.args))
        files.replace(run / "boot.json", json.dumps({"schema": 1, "seconds": dict(seconds)}) + "\n")
        for told in run.glob("fetch*.json"):  # by the fetches of the container's last run
            told.unlink(missing_ok=True)
        if serving.has_comfyui(environ):
            root = Path(environ.get("PODKILN_ROOT") or "/opt/podkiln")
            run_files.write(decision.volume, environ, root, run, _of_nodes(decision))
        else:
            run_files.write_environment(run, decision.volume.places())
    except OSError as error:
        message = (
            f"{run} cannot be written ({error.strerror}): make it a writable directory, or set PODKILN_RUN."
        )
        raise PodError(message, INTERNAL) from None
