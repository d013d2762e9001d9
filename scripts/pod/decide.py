"""`decide`: read the pod, choose ComfyUI's arguments, and write down what was chosen and why.

It writes $PODKILN_RUN/decision.json and $PODKILN_RUN/comfyui.args (each argument followed by a NUL byte, for
bash's `mapfile -d ''`), and says the reasons on stderr. With --explain it prints the JSON on stdout and
writes nothing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pod import smi
from pod.failure import INTERNAL, PodError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from pod.arguments import Parsed
    from pod.choice import Decision

_DEVICE = Path("/dev/nvidiactl")


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the command; returns its exit code. Raises PodError."""
    unknown = [argument for argument in arguments if argument != "--explain"]
    if unknown:
        raise PodError(f"decide knows --explain and nothing else; {unknown[0]!r} is not that.", INTERNAL)
    decision = decide(environ)
    say(decision)
    if arguments:
        import json  # noqa: PLC0415 - loaded already, see decide()

        json.dump(decision.to_json(), sys.stdout, indent=2)
        print()
    else:
        write(decision, Path(environ.get("PODKILN_RUN", "/run/podkiln")))
    return 0


def decide(environ: Mapping[str, str]) -> Decision:
    """Read everything there is to read, and choose. Raises PodError.

    nvidia-smi takes longest by far, so it is started first, and all else is loaded and read beside it.
    """
    limit = smi.limit(environ)
    with smi.Question(smi.CARDS, limit) as cards:
        from pod import access, choice, gpu, memory, rules, selection, settings  # noqa: PLC0415 - beside nvidia-smi

        root = Path(environ.get("PODKILN_ROOT", "/opt/podkiln"))
        known = rules.load(root / "flags.json")
        offers = selection.load(root / "models.json")
        asked = settings.read(environ, known, {offer.env for offer in offers})
        if asked.wishes:
            asked = selection.check_folders(asked, root)
        user = known.catalogue.parse_text(asked.arguments, "COMFYUI_ARGS")
        pod_memory = memory.read(
            Path(environ.get("PODKILN_CGROUP_ROOT", memory.CGROUP_ROOT)),
            Path(environ.get("PODKILN_MEMINFO", memory.MEMINFO)),
        )
        seen = _as_comfyui_sees(environ, user)
        found = gpu.detect(cards, seen, limit, device_node=_DEVICE.exists())
        return choice.choose(known, asked, user, found, pod_memory, offers, str(root), access.read(environ))


def _as_comfyui_sees(environ: Mapping[str, str], user: Parsed) -> Mapping[str, str]:
    """ComfyUI writes two of its flags into CUDA_VISIBLE_DEVICES itself (main.py of 0.33.0)."""
    only, first = user.value("--cuda-device"), user.value("--default-device")
    if only is not None:
        return {**environ, "CUDA_VISIBLE_DEVICES": only}
    if first is not None:
        return {name: value for name, value in environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return environ


def say(decision: Decision) -> None:
    """Print reasons and warnings for the pod's log, and the command line that they lead to."""
    for sentence in sentences(decision.to_json()):
        print(sentence, file=sys.stderr)


def sentences(record: Mapping[str, Any]) -> list[str]:
    """Return what is said about a decision, from its entry in decision.json."""
    import shlex  # noqa: PLC0415 - loaded already, see decide()

    return [
        *(f"podkiln: warning: {warning}" for warning in record["warnings"]),
        *(f"podkiln: {reason}" for reason in record["reasons"]),
        f"podkiln: ComfyUI's arguments: {shlex.join(record['args'])}",
    ]


def write(decision: Decision, run: Path) -> None:
    """Write decision.json and comfyui.args. Raises PodError where the directory cannot be written."""
    import json  # noqa: PLC0415 - loaded already, see decide()

    try:
        run.mkdir(parents=True, exist_ok=True)
        _replace(run / "decision.json", json.dumps(decision.to_json(), indent=2) + "\n")
        _replace(run / "comfyui.args", "".join(f"{word}\0" for word in decision.args))
    except OSError as error:
        message = (
            f"{run} cannot be written ({error.strerror}): make it a writable directory, or set PODKILN_RUN."
        )
        raise PodError(message, INTERNAL) from None


def _replace(path: Path, text: str) -> None:
    """Write aside, then rename: a reader sees the old file or the new one, never half of one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
