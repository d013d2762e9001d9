"""What start.sh calls inside the image: `python3 -I -S /opt/podkiln <command> [arguments]`.

Each command is a module's main(arguments) and is imported only when it is called: a boot waits for this.
"""

from __future__ import annotations

import importlib
import io
import os
import sys

from pod.errors import INTERNAL, PodError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COMMANDS = (
    "comfy",
    "decide",
    "doctor",
    "end",
    "fetch",
    "health",
    "model",
    "nodes",
    "run",
    "serve",
    "services",
    "volume",
    "worker",
)
# All but these need nothing but the standard library, and are started by the system's Python.
ELSEWHERE = {
    "comfy": "comfy.command",
    "model": "server.command",
    "serve": "worker.serve_command",
    "worker": "worker.command",
}
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
        from pod import container_env  # noqa: PLC0415 - its pathlib costs 10 ms that a boot waits for

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
            f"an internal error of podkiln stopped {name} ({type(bug).__name__}: {shown(bug)}); "
            "PODKILN_DEBUG=1 shows where: please report it."
        )
        return INTERNAL


class _LossyStream(io.FileIO):
    """A descriptor whose failures lose what was said: a full log disk stops nothing."""

    def write(self, data: Any) -> int:
        """Write all of it, or give the rest up."""
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left:
                left = left[super().write(left) or len(left) :]
        except OSError:
            pass
        return size


def open_streams() -> None:
    """Open what is closed of stdin, stdout and stderr, and make a stderr of which no write fails."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
    sys.stderr = io.TextIOWrapper(
        _LossyStream(2, "w", closefd=False),  # unbuffered, as `python -u` has it
        encoding="utf-8",
        errors="backslashreplace",
        write_through=True,
    )


def _say(sentence: str) -> None:
    from pod.util.say import say  # noqa: PLC0415 - a boot does without it

    say(sentence)


if __name__ == "__main__":
    open_streams()
    sys.exit(main(sys.argv[1:]))
