"""Loading a finished image into the local engine, streamed from its layout."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from typing import IO, TYPE_CHECKING

from podkiln.errors import CommandError, EngineError
from podkiln.oci.layout import docker_archive
from podkiln.util import process as command

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from podkiln.oci.layout import Layout
    from podkiln.oci.reference import Reference


def load(layout: Layout, names: Sequence[Reference]) -> None:
    """Load an image into the engine of DOCKER_HOST or the docker context, under these names.

    Raises EngineError with the engine's own words, IntegrityError when a blob is damaged.
    """
    argv = ["docker", "load", "--quiet"]
    command.echo(argv)
    try:
        docker = command.find_executable("docker")
    except CommandError as missing:
        raise EngineError(
            str(missing), hint="Install a Docker Engine: scripts/host/ensure_engine.sh."
        ) from missing
    with (
        tempfile.TemporaryFile() as output,  # an unread pipe would block an engine that prints much
        subprocess.Popen([docker, *argv[1:]], stdin=subprocess.PIPE, stdout=output, stderr=output) as process,
    ):
        try:
            _feed(process, docker_archive(layout, names))
            code = process.wait()
        except BaseException:
            # The client first, then its input: it must not take the end of a cut archive for that of a whole.
            process.kill()
            process.wait()
            _close(process)
            raise
        if code:
            raise EngineError(f"The engine did not load the image: {_words(output) or f'exit code {code}'}")


def _feed(process: subprocess.Popen[bytes], chunks: Iterable[bytes]) -> None:
    """Write an archive to a process; one that stops reading says why on its error output."""
    assert process.stdin is not None  # noqa: S101 - Popen was asked for a pipe
    with contextlib.suppress(BrokenPipeError):
        for chunk in chunks:
            process.stdin.write(chunk)
    _close(process)


def _close(process: subprocess.Popen[bytes]) -> None:
    """Close a process's input; closing writes what is still buffered, which a dead process does not take."""
    with contextlib.suppress(BrokenPipeError):
        if process.stdin:
            process.stdin.close()


def _words(output: IO[bytes]) -> str:
    output.seek(0)
    return command.tail(output.read().decode(errors="replace"), lines=3)
