"""BuildKit run over the bake file: one OCI image layout a variant comes out.

BuildKit never pushes and never loads: podkiln does, with the layers that it writes from these.
"""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import re
import shlex
import subprocess
import sys
import termios
from typing import IO, TYPE_CHECKING

from podkiln.errors import BuildFailedError, IntegrityError, PodkilnError, SourceError
from podkiln.plan.substitutes import WITHOUT_NODES
from podkiln.render.bake_file import BAKE_FILE, BuildSecrets
from podkiln.util import process as command
from podkiln.util.masking import Filter, masked

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


log = logging.getLogger(__name__)


class BuildDiskFullError(BuildFailedError):
    """A disk is full; `path`: what could not be written, where that is told."""

    def __init__(self, message: str, *, path: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.path = path


def command_line(names: Sequence[str], *, builder: str | None = None, no_cache: bool = False) -> list[str]:
    """Return the command that builds, as a person would type it in the output folder."""
    options = [*(["--builder", builder] if builder else []), *(["--no-cache"] if no_cache else [])]
    return ["docker", "buildx", "bake", "--file", BAKE_FILE, *options, *names]


def by_hand(argv: Sequence[str], out: Path, environment: BuildSecrets) -> str:
    """Return the line to type into a shell for the same build, without the logins that URLs may hold."""
    variables = [f"{name}={shlex.quote(masked(value))}" for name, value in environment.variables().items()]
    return f"cd {shlex.quote(str(out))} && {' '.join([*variables, shlex.join(argv)])}"


def run(
    argv: Sequence[str],
    out: Path,
    environment: BuildSecrets,
    more: Sequence[str] = (),
    *,
    quiet: bool = False,
) -> None:
    """Run BuildKit with live progress; `more` are options that a person who builds by hand does without.

    Raises SourceError when an input cannot be reached, BuildFailedError when a step fails.
    """
    log.info("+ %s", by_hand(argv, out, environment))
    terminal = sys.stderr.isatty() and not quiet
    progress = "--progress=" + ("quiet" if quiet else "auto" if terminal else "plain")
    full = [command.find_executable(argv[0]), *argv[1:3], progress, *more, *argv[3:]]
    status, output = _relay(full, out, {**os.environ, **environment.variables()}, terminal=terminal)
    if status:
        raise explain(status, output, sys.argv[1:])


def _relay(argv: list[str], cwd: Path, env: dict[str, str], *, terminal: bool) -> tuple[int, str]:
    """Run a program, show what it prints as it comes, and keep the end of it.

    BuildKit draws its live display only on a terminal, so on one it is given a terminal of its own.
    """
    if terminal:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, fcntl.ioctl(sys.stderr, termios.TIOCGWINSZ, bytes(8)))
        process = subprocess.Popen(argv, cwd=cwd, env=env, stdout=theirs, stderr=theirs)
        os.close(theirs)
        stream: IO[bytes] = os.fdopen(ours, "rb", buffering=0)
    else:
        process = subprocess.Popen(argv, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        stream = process.stdout
    kept, secrets = b"", Filter()
    try:
        while chunk := _read(stream):
            kept = _show(secrets.feed(chunk), kept)
        kept = _show(secrets.rest(), kept)
        return process.wait(), kept.decode(errors="replace")
    except BaseException:
        # Ctrl-C reaches BuildKit's client too; it tells the engine to stop, which takes a moment.
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    finally:
        stream.close()


def _show(chunk: bytes, kept: bytes) -> bytes:
    """Write some output to stderr; return the end of it all."""
    view = memoryview(chunk)
    while view:
        view = view[os.write(sys.stderr.fileno(), view) :]
    return (kept + chunk)[-65536:]


def _read(stream: IO[bytes]) -> bytes:
    try:
        return os.read(stream.fileno(), 65536)
    except OSError:  # a terminal whose other end has closed
        return b""


# What BuildKit says when an input could not be fetched, what that means, and the option that helps.
_CAUSES = (
    (
        re.compile(r"failed to resolve source metadata for (?P<what>\S+?)(:?\s|$)"),
        "The base image {what} could not be fetched.",
        ("--base", "bootstrap", "Make one from Debian packages (--base REF takes another image)"),
    ),
    (
        re.compile(r"failed to fetch remote (?P<what>\S+?)(:?\s|$)"),
        "The source repository {what} could not be fetched.",
        ("--source", "{name}=DIR", "Use a checkout of it ({name}=URL#COMMIT takes a mirror{or_none})"),
    ),
    (
        re.compile(
            r"UnknownIssuer|CERTIFICATE_VERIFY_FAILED|signed by unknown authority|certificate is NOT trusted"
        ),
        "A TLS certificate is signed by an authority that the build does not trust.",
        ("--ca-bundle", "/etc/ssl/certs/ca-certificates.crt", "Trust what this machine trusts"),
    ),
    (
        re.compile(r"Failed to fetch (?P<what>\S+)  |E: (Unable to locate package|The repository)"),
        "Debian packages could not be fetched.",
        ("--apt-mirror", "URL", "Use a mirror that can be reached"),
    ),
    (
        re.compile(r"Failed to fetch: |Could not find a version that satisfies|Max retries exceeded"),
        "Python packages could not be fetched.",
        ("--python-index", "URL", "Use an index that can be reached"),
    ),
)


# What scripts/build/install-packages.sh says when something is not what the apt lock names.
_NOT_AS_LOCKED = re.compile(r" podkiln: (?P<what>[^\n]* the apt lock [^\n]*\.)")
# What scripts/build/import_nodes.py and apply_patches.py say of a node; what nodes print is indented there.
_NODE = re.compile(
    r"^(?:#\d+ )?[\d.]+ podkiln: (?P<what>The (?:custom nodes?|source tree) [^\r\n]*\.)", re.MULTILINE
)
# The stage of packages that `lock --keep` has pushed, where BuildKit cannot read it although podkiln could.
_KEPT = re.compile(r">>> FROM (?P<what>\S+) AS kept$", re.MULTILINE)
# A full disk; of a client that writes what BuildKit exports, with the path on this machine.
_DISK_FULL = re.compile(
    r"(?:(?:write|open|mkdir|sync|create) (?P<path>/[^\n:]+): )?no space left on device", re.IGNORECASE
)
_SUBSTITUTES = ("--base", "--source")  # with which a push has to be allowed


def explain(status: int, output: str, arguments: Sequence[str]) -> PodkilnError:
    """Return the error for what BuildKit printed when it was run for our own command line."""
    said = output[max(output.rfind("\n > ["), 0) :]  # the step that failed: others may have tried twice
    if found := _NOT_AS_LOCKED.search(said):
        hint = "Another mirror may have the right one: --apt-mirror URL. Or lock again: lock --upgrade apt."
        return IntegrityError(masked(found["what"]), hint=hint)
    if nodes := dict.fromkeys(_NODE.findall(said)):
        lacks = any("No module named" in each for each in nodes)
        mend = (
            "Add the package that it lacks to its `python.install`" if lacks else "Take another commit of it"
        )
        hint = f"{mend}, and lock again; or take it out of `nodes:` (docs/how-to/custom-nodes.md)."
        return BuildFailedError(masked(" ".join(nodes)), hint=hint)
    if full := _DISK_FULL.search(said):
        path = full["path"] or ""
        where = f": it could not write to {path.rpartition('/')[0]}" if path else ""
        return BuildDiskFullError(
            f"The disk that BuildKit builds on is full{where}.",
            path=path,
            hint="`docker buildx prune` gives back its cache; `./build.py doctor` shows what podkiln keeps.",
        )
    if found := _KEPT.search(said):
        return SourceError(
            f"The builder could not fetch the kept packages {found['what']}.",
            hint="See that it reaches that registry and is logged in there (docker login). Or take the image "
            "out of kept.json: packages come from their mirrors then.",
        )
    for pattern, what, (option, value, effect) in _CAUSES:
        found = pattern.search(said)
        if found:
            name = _source_name(output, found.groupdict().get("what") or "", arguments)
            or_none = f", {WITHOUT_NODES} leaves all nodes out" if name.startswith("node-") else ""
            names = {"name": name, "or_none": or_none, **found.groupdict()}
            more = [option, value.format(**names)]
            if "--push" in arguments and "--allow-substituted" not in arguments and option in _SUBSTITUTES:
                more.append("--allow-substituted")
            again = shlex.join([*_without(arguments, option, names["name"]), *more])
            hint = f"{effect.format(**names)}: ./build.py {again}"
            return SourceError(masked(what.format(**names)), hint=masked(hint))
    return BuildFailedError(
        f"BuildKit ended with exit code {status}; its last lines above say where.",
        hint="Run the command above by hand, or build every step again with --no-cache.",
    )


def _source_name(output: str, url: str, arguments: Sequence[str]) -> str:
    """Return the stage whose source BuildKit could not fetch: for a named context it shows only the URL.

    Where it builds several targets, theirs stands before the stage's name.
    """
    stage = re.search(rf"\[(?:\S+ )?(\S+) \d+/\d+\] ADD {re.escape(url)}#", output)
    given = [word for word in arguments if f"={url}#" in word]
    return (
        stage[1] if stage else given[0].rpartition("--source=")[2].partition("=")[0] if given else "comfyui"
    )


def _without(arguments: Sequence[str], option: str, name: str) -> list[str]:
    """Return a command line without an option that is added again; of --source, only that of this name."""
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        given, equals, value = word.partition("=")
        if given != option:
            kept.append(word)
            continue
        value = value if equals else next(words, "")
        if option == "--source" and not value.startswith(f"{name}="):
            kept += [option, value]
    return kept
