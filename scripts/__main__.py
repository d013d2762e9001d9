"""What start.sh calls inside the image: `python3 -I -S /opt/podkiln <command> [arguments]`.

Each command is a module's main(arguments) and is imported only when it is called: a boot waits for this.
"""

from __future__ import annotations

import importlib
import io
import os
import sys

from pod import container_env
from pod.errors import INTERNAL, PodError

COMMANDS = ("comfy", "decide", "doctor", "fetch", "health", "nodes", "run", "services", "volume")
# All but this one need nothing but the standard library, and are started by the system's Python.
ELSEWHERE = {"comfy": "comfy.command"}
# What people call too, from a shell that may know nothing of the pod.
BY_HAND = ("comfy", "fetch")


def main(argv: list[str]) -> int:
    """Run a command and turn failures into one sentence and an exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # as stderr is: names of files may be any bytes
        sys.stdout.reconfigure(errors="backslashreplace")
    name = argv[0] if argv else ""
    if name not in COMMANDS:
        _say(f"{name or 'no command'!r} is not one of {', '.join(COMMANDS)}.")
        return INTERNAL
    if name in BY_HAND:
        container_env.adopt(os.environ)
    try:
        return int(importlib.import_module(ELSEWHERE.get(name, f"pod.commands.{name}")).main(argv[1:]))
    except PodError as failure:
        _say(str(failure))
        return failure.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as bug:
        if os.environ.get("PODKILN_DEBUG"):
            raise
        from pod.util.printable import shown  # noqa: PLC0415 - a boot does without it

        _say(
            f"a mistake in podkiln itself stopped {name} ({type(bug).__name__}: {shown(bug)}); "
            "PODKILN_DEBUG=1 shows where: please report it."
        )
        return INTERNAL


def _say(sentence: str) -> None:
    from pod.util.say import say  # noqa: PLC0415 - a boot does without it

    say(sentence)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
