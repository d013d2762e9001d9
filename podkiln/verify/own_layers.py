"""The files of podkiln's own layers against what is rendered, whatever the lock remembers of these layers.

They hold what a pod runs first: /opt/podkiln, the commands in /usr/local/bin, and /start.sh. All of it but
the bytecode comes from the variant and its lock, so that no push has to be remembered to compare it. What
bytecode holds depends on the image's own Python: of that, only which files there are is compared.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from podkiln.canonical_layers import entries
from podkiln.canonical_layers.entries import FILE, FOLDER, Entry
from podkiln.errors import IntegrityError
from podkiln.render import build_context
from podkiln.verify import file_differences
from podkiln.verify.file_differences import MOST_NAMED
from podkiln.verify.unpack import UnclearError, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from podkiln.oci.spec import Descriptor
    from podkiln.plan.plan import Plan
    from podkiln.render.context_file import File
    from podkiln.render.image_config import Instruction, RenderedConfig
    from podkiln.verify.compare import RemoteImage

MANIFEST: Final = "podkiln/manifest.json"
"""The file that names the image's substitutes."""
_MOST_BYTES: Final = 64 << 20  # of one of these layers, unpacked; they have 2 MB
_ANY_TIME: Final = 1 << 62  # seconds: times are not compared
_ONLY_RENDERED: Final = "only in what is rendered"


def findings(
    plan: Plan,
    rendered: RenderedConfig,
    held: RemoteImage,
    weights: Collection[int],
    read: Callable[[Descriptor], Iterable[bytes]],
    *,
    substituted: bool,
) -> Iterator[str]:
    """Compare files, and yield a sentence for each layer in which one differs.

    Args:
        plan: The image's plan.
        rendered: Its Dockerfile, whose last steps made these layers.
        held: The image, with as many entries in its history as it has layers.
        weights: The numbers of its layers of weights.
        read: Yields the bytes of a layer. Raises IntegrityError, RegistryError.
        substituted: The image says that it has substitutes, which are not the plan's: a file that names them
            is not compared then.
    """
    files = build_context.render(plan)
    if substituted:
        del files[MANIFEST]
    copied: list[Entry] = []
    for step, number in _located(rendered, held, weights):
        blob = held.manifest.layers[number]
        name = f"Its layer {number} ({step.text.removesuffix(' # buildkit')})"
        try:
            entries_held = _entries(blob, read(blob))
        except (IntegrityError, UnclearError) as wrong:
            yield f"{name} cannot be compared with what is rendered: {str(wrong).rstrip('.')}."
            continue
        if substituted:
            entries_held = [each for each in entries_held if each.path != b"opt/" + MANIFEST.encode()]
        wanted: list[Entry] = []
        if step.word == "COPY":
            wanted = _copied(step, files)
            copied += wanted
        elif step.word == "RUN":
            wanted = _compiled(copied, plan.described.spec.runtime.python.version, entries_held)
        yield from _differences(name, entries_held, [*wanted, *_folders(step, wanted, entries_held)])


def _located(
    rendered: RenderedConfig, held: RemoteImage, weights: Collection[int]
) -> Iterator[tuple[Instruction, int]]:
    """Yield the steps of the image's own stage that have a layer, and its number: by the history."""
    numbers = {id(row): number for number, row in enumerate(held.config.layer_history)}
    rows = [row for row in held.config.history if numbers.get(id(row)) not in weights]
    own = rows[len(rows) - len(rendered.steps) :]
    if len(own) < len(rendered.steps):  # which is said already
        return
    begins = rendered.steps_below
    for step, row in zip(rendered.steps[begins:], own[begins:], strict=True):
        if id(row) in numbers:
            yield step, numbers[id(row)]


def _differences(name: str, held: Sequence[Entry], wanted: Sequence[Entry]) -> Iterator[str]:
    found = file_differences.compare(held, wanted, _ONLY_RENDERED)
    if found:
        count = "1 file differs" if len(found) == 1 else f"{len(found)} files differ"
        named = "; ".join(map(str, found[:MOST_NAMED]))
        more = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        yield f"{name} is not what is rendered; {count} (registry -> rendered): {named}{more}."


def _entries(blob: Descriptor, chunks: Iterable[bytes]) -> list[Entry]:
    """Return what a layer holds, without times. Raises IntegrityError, UnclearError."""
    tar = io.BytesIO()
    for piece in unpacked(blob.media_type, chunks):
        if tar.tell() + len(piece) > _MOST_BYTES:
            raise IntegrityError(f"it holds more than {_MOST_BYTES >> 20} MiB, and podkiln's own code 2")
        tar.write(piece)
    tar.seek(0)
    return [replace(each, time=0) for each in entries.read(tar, "it", _ANY_TIME)]


def _copied(step: Instruction, files: Mapping[str, File]) -> list[Entry]:
    """Return the files that a COPY makes."""
    *options, source, target = step.text.removesuffix(" # buildkit").split()[1:]
    mode = next((int(each.partition("=")[2], 8) for each in options if each.startswith("--chmod=")), None)
    chosen = {path: file for path, file in files.items() if path == source or source.endswith("/")}
    return [
        Entry(
            path=(target + path.removeprefix(source)).strip("/").encode(),
            kind=FILE,
            mode=file.mode if mode is None else mode,
            owner=0,
            group=0,
            time=0,
            size=len(file.content),
            content=hashlib.sha256(file.content).digest(),
        )
        for path, file in chosen.items()
        if path.startswith(source)
    ]


def _compiled(sources: Sequence[Entry], python: str, held: Sequence[Entry]) -> list[Entry]:
    """Return the bytecode of sources, its content taken from the layer: what it should be is not known."""
    there = {each.path: each for each in held if each.kind == FILE}
    tag = f"cpython-{python.replace('.', '')}"
    wanted = []
    for source in sources:
        if source.path.startswith(b"opt/podkiln/") and source.name.endswith(b".py"):
            name = f"__pycache__/{source.name.decode().removesuffix('.py')}.{tag}.pyc".encode()
            path = b"/".join((source.folder, name))
            made = there.get(path, source)
            wanted.append(replace(source, path=path, size=made.size, content=made.content))
    return wanted


def _folders(step: Instruction, wanted: Sequence[Entry], held: Sequence[Entry]) -> list[Entry]:
    """Return the folders that a layer may repeat: those of its files, as root's and open to all."""
    places = [each.folder for each in wanted]
    if step.word == "WORKDIR":
        places.append(step.text.split()[1].strip("/").encode())
    parents = {b""}
    for place in places:
        parts = place.split(b"/")
        parents |= {b"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)}
    own = [each.path for each in held if each.kind == FOLDER and each.path in parents]
    return [Entry(path, FOLDER, 0o755, 0, 0, 0) for path in own]
