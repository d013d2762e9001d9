"""Installing what custom nodes lack, onto the volume, by the pip of ComfyUI's own environment.

pip first says what it would install beside the image's packages, held to their versions; then just that is
installed, without looking at dependencies again. So torch is never fetched a second time, and a node that
would change the image is found out, however deep in its dependencies that lies.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from pod.errors import PodError
from pod.util import secret_variables, untrusted_files
from pod.util.printable import shown
from pod.volume import package_overlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from pod.volume.volume import Volume

PATIENCE = 900  # seconds for one call of pip
_LONGEST_WORD = 400  # characters of what pip says
_QUIET = ("--disable-pip-version-check", "--no-input", "--quiet")


def serve(seen: Volume, venv: str, say: Callable[[str], None]) -> bool:
    """Install what the volume's nodes lack; returns whether they have all now. Raises PodError."""
    doubts = seen.nodes.doubts()
    for doubt in doubts:
        say(doubt)
    if seen.nodes.unread:  # which the doubts say: nobody knows what the nodes lack
        return False
    if not seen.nodes.lacking:
        say(
            "the custom nodes lack nothing of what is understood"
            if doubts
            else "the custom nodes lack nothing"
        )
        return not doubts
    if seen.workspace != seen.root or seen.overlay is None:
        raise PodError(f"{seen.root} cannot be written, so what custom nodes lack cannot be put there.")
    wants = {one.node: one.beyond for one in seen.nodes.loaded if one.beyond}
    with tempfile.TemporaryDirectory() as folder:
        limits = Path(seen.run, package_overlay.CONSTRAINTS)
        if not limits.is_file():  # by hand, before any start
            limits = Path(folder, package_overlay.CONSTRAINTS)
            limits.write_text(package_overlay.constraints_text(package_overlay.site(venv)), encoding="utf-8")
        return install(Path(seen.overlay), wants, venv, limits, say) and not doubts


def install(
    place: Path, wants: Mapping[str, Sequence[str]], venv: str, limits: Path, say: Callable[[str], None]
) -> bool:
    """Make a set of packages, and make it current; returns whether no node was refused. Raises PodError.

    Args:
        place: From `overlay.base`; it must be writable.
        wants: What goes beyond the image, by node: all of it, since a set is whole or not at all.
        venv: ComfyUI's environment; its pip is used.
        limits: The constraints file: with it pip finds out what would change the image, and refuses.
        say: Takes sentences.
    """
    python = f"{venv}/bin/python"
    say(f"looking up the packages that {', '.join(wants)} want")
    chosen, complete = _resolvable(python, wants, limits, say)
    if not chosen:
        return complete
    name = hashlib.sha256("\n".join(sorted(chosen)).encode()).hexdigest()[:16]
    if not (place / name).is_dir():
        say(f"installing {len(chosen)} packages for custom nodes into {place / name}")
        _fill(python, place / name, chosen)
    _replace(place / package_overlay.CURRENT, f"{name}\n")
    say(f"{len(chosen)} packages for custom nodes are in use; they stay on the volume")
    return complete


def _resolvable(
    python: str, wants: Mapping[str, Sequence[str]], limits: Path, say: Callable[[str], None]
) -> tuple[list[str], bool]:
    """Return what pip would install for all nodes together, and whether that leaves none of them out."""
    everything = [want for each in wants.values() for want in each]
    with contextlib.suppress(_NoWayError):
        return _resolve(python, everything, limits), True
    kept: list[str] = []
    chosen: list[str] = []
    for node, each in wants.items():
        try:
            chosen = _resolve(python, [*kept, *each], limits)
        except _NoWayError as why:
            say(f"the packages of custom node {node} cannot be installed: {why}")
        else:
            kept += each
    return chosen, False


class _NoWayError(Exception):
    """pip cannot give what is wanted; the message is its last word."""


def _resolve(python: str, wants: Sequence[str], limits: Path) -> list[str]:
    """Ask pip what it would install beside what is there: `name @ url` each, by hash where that is known.

    Format: https://pip.pypa.io/en/stable/reference/installation-report/.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked, report = Path(folder, "requirements.txt"), Path(folder, "report.json")
        asked.write_text("".join(f"{want}\n" for want in wants), encoding="utf-8")
        options = [
            "--dry-run",
            "--prefer-binary",
            "--constraint",
            limits,
            "--requirement",
            asked,
            "--report",
            report,
        ]
        _pip(python, "install", *_QUIET, *map(str, options))
        found = json.loads(report.read_bytes())["install"]
    return [_pinned(entry) for entry in found]


def _pinned(entry: Mapping[str, Any]) -> str:
    source = entry["download_info"]
    url = source["url"]
    if "vcs_info" in source:
        url = f"{source['vcs_info']['vcs']}+{url}@{source['vcs_info']['commit_id']}"
    elif sha256 := source.get("archive_info", {}).get("hashes", {}).get("sha256"):
        url = f"{url}#sha256={sha256}"
    return f"{entry['metadata']['name']} @ {url}"


def _fill(python: str, folder: Path, chosen: Sequence[str]) -> None:
    """Install aside, then rename: a folder that has its name is whole. Raises PodError."""
    aside = folder.with_name(f".{folder.name}.{os.getpid()}-{os.urandom(4).hex()}")
    try:
        untrusted_files.make_folder(folder.parent)
        aside.mkdir()
        _pip(python, "install", *_QUIET, "--no-deps", "--target", str(aside), *chosen)
        _move(aside, folder)
    except _NoWayError as why:
        raise PodError(f"the packages of custom nodes could not be installed: {why}") from None
    except OSError as error:
        raise PodError(
            f"{folder.parent} cannot be written ({error.strerror}): make room, or mount it writable."
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _move(aside: Path, folder: Path) -> None:
    """Rename; another pod that was faster with the same set is as good."""
    try:
        aside.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _pip(python: str, *arguments: str) -> None:
    """Call pip without our own constraints and overlay in its environment. Raises _NoWayError.

    A package that comes as source is built by running code of its own, which must not see any secret.
    """
    own = {
        name: value
        for name, value in secret_variables.without_any(os.environ).items()
        if name not in ("PIP_CONSTRAINT", "PYTHONPATH")
    }
    try:
        done = subprocess.run(
            [python, "-m", "pip", *arguments],
            env=own,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise _NoWayError(f"pip did not end within {PATIENCE} s") from None
    except OSError as error:
        raise _NoWayError(f"{python} cannot be run ({error.strerror})") from None
    if done.returncode:
        raise _NoWayError(_last_words(done.stderr))


def _last_words(said: str) -> str:
    """Return the first error of pip's; what follows it is advice about other things."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return shown((errors or lines or ["pip ended without a message"])[0], _LONGEST_WORD)


def _replace(path: Path, text: str) -> None:
    with untrusted_files.replacing(path) as descriptor:
        os.write(descriptor, text.encode())
