"""Read the pod for the server of a model: its cards, its memory, its volume, and whether it can work here.

The server reads what was found from decision.json, and chooses by it how its model is loaded.
"""

from __future__ import annotations

from pod import model_server_http
from pod.hardware import nvidia_smi
from pod.util import child_processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from pod.flags.decision import Decision
    from pod.hardware.memory import Memory
    from pod.util.stopwatch import Stopwatch

TITLE = "the model server"
_WITHOUT = "CUDA_VISIBLE_DEVICES=-1 does without the GPU"


def decide(environ: Mapping[str, str], run: str, watch: Stopwatch, *, write: bool) -> Decision:
    """Read everything there is to read. Raises PodError.

    Args:
        environ: The pod's environment.
        run: The run folder.
        watch: Notes how long the parts take.
        write: Whether folders that are missing may be made.
    """
    limit = nvidia_smi.limit(environ)
    with nvidia_smi.NvidiaSmiQuery(nvidia_smi.CARDS, limit) as cards:
        from pathlib import Path  # noqa: PLC0415 - costs 10 ms, beside nvidia-smi

        from pod.flags import gpu_class, rules, settings  # noqa: PLC0415 - beside nvidia-smi
        from pod.flags.decision import Decision, as_sentence  # noqa: PLC0415 - the same
        from pod.flags.model_selection import Selection  # noqa: PLC0415 - the same
        from pod.flags.node_selection import NodeSelection  # noqa: PLC0415 - the same
        from pod.hardware import compatibility, gpu, gpu_presence, memory  # noqa: PLC0415 - the same
        from pod.hardware.cuda_visible_devices import VARIABLE  # noqa: PLC0415 - the same
        from pod.services import config, ping_config  # noqa: PLC0415 - the same
        from pod.util import ports  # noqa: PLC0415 - the same
        from pod.util.dataclass import replace  # noqa: PLC0415 - the same
        from pod.volume.inspect import ProbeOptions  # noqa: PLC0415 - the same
        from pod.volume.inspect_plain import PlainVolumeProbe  # noqa: PLC0415 - the same

        known = rules.load(Path(environ.get("PODKILN_ROOT") or "/opt/podkiln") / "flags.json")
        asked = settings.read_for_server(environ, known)
        ways = config.read(environ)
        ways.check_ports(asked.port)
        ping_config.read(environ, -1, {"PORT": asked.port, **ways.ports(asked.port)})  # refuses what is odd
        where = ProbeOptions.of(environ, asked.workspace, known.workspace)
        with PlainVolumeProbe(where, write=write) as volumes:
            ram = memory.read(
                Path(environ.get("PODKILN_CGROUP_ROOT") or memory.CGROUP_ROOT),
                Path(environ.get("PODKILN_MEMINFO") or memory.MEMINFO),
            )
            # Empty, as compose's `${X:-}` sets it; start.sh unsets it then.
            seen = {name: value for name, value in environ.items() if name != VARIABLE or value.strip()}
            found = gpu.detect(
                cards, seen, limit, witness=gpu_presence.witness(environ), unified=known.unified_cards
            )
            watch.lap("gpu")
            volume = volumes.answer()
        if found.unusable:
            found = replace(found, unusable=found.unusable.replace(gpu.WITHOUT, _WITHOUT))
        card = gpu_class.classify(found, ram, asked, known)
        warnings = [*volume.warnings, *ways.warnings, *card.warnings]
        if not card.usable:
            warnings.append("there is no GPU, so the model runs on the CPU, which takes many times as long")
        decision = Decision(
            args=(),
            port=asked.port,
            listen=(),
            access=ways,
            memory_mode=None,
            profile=asked.profile,
            card=card,
            detection=found,
            memory=ram,
            selection=Selection(),
            volume=volume,
            nodes=NodeSelection(),
            reasons=tuple(map(as_sentence, (*card.reasons, *_ram(ram), *volume.reasons))),
            warnings=tuple(map(as_sentence, warnings)),
        )
        watch.lap("checks")
        # GPU_TIER says that there is one that cannot be asked.
        unfit = [] if card.usable and found.gpu is None else compatibility.examine(found, known.cuda)
        given, own = ("--port", str(asked.port)), child_processes.group(run, model_server_http.NAME)
        taken = ports.examine(given, ways.to_json(), asked.port, (), own, (TITLE, "PORT"))
        return decision.with_findings([*unfit, *taken])


def _ram(ram: Memory) -> list[str]:
    if ram.total_mib is None:
        return ["the pod's RAM is not known"]
    if ram.limited:
        return [f"the pod may use {ram.limit_mib} MiB of RAM, of the machine's {ram.host_mib or 'unknown'}"]
    return [f"the pod may use all {ram.host_mib} MiB of the machine's RAM"]
