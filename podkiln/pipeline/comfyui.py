"""A ComfyUI release described: its source is read, its files and lock are written, and the changes are said.

Everything is read before anything is written, and nothing of the source is run.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from packaging.specifiers import SpecifierSet

from podkiln.config import (
    cli_args,
    comfyui_flags,
    comfyui_source,
    cuda_releases,
    document,
    folder_paths,
    release_text,
    releases,
    variant,
)
from podkiln.errors import DescriptionError, UsageError
from podkiln.lock import locations
from podkiln.lock.resolve import comfyui_checkout, nodes, runtime, serving
from podkiln.pipeline import release_report
from podkiln.util import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podkiln.config.cli_args import ReadFlag
    from podkiln.config.comfyui_source import Source
    from podkiln.config.variant import LoadedVariant
    from podkiln.lock.resolve.comfyui_checkout import Checkout
    from podkiln.pipeline.release_report import ReleaseReport

_SHIPPED: Final = "lazy"  # any shipped variant: they share one runtime
_NOTHING: Final = "Nothing was written."
_BASE: Final = variant.SHIPPED / "base.yaml"


@dataclass(frozen=True)
class ReleaseRequest:
    """What is asked for.

    Attributes:
        name: VERSION, COMMIT, VERSION@COMMIT or newest.
        variant: A variant of one's own, beside which the files go; None for the shipped ones.
        source: The folder of the source tree; None to fetch it.
        pin: Whether the shipped variants move to it.
        lock: Whether its Python packages are locked.
        cuda: The CUDA release that they are locked for; None for that of the variant.
    """

    name: str
    variant: str | None = None
    source: Path | None = None
    pin: bool = False
    lock: bool = True
    cuda: str | None = None


def describe(request: ReleaseRequest) -> ReleaseReport:
    """Write a release's files and its lock. Returns what changed against the release that was built so far.

    Raises UsageError, SourceError, DescriptionError and LockError.
    """
    if request.pin and request.variant:
        raise UsageError(
            "--pin moves the shipped variants, so it takes no --variant.", hint="Give one of the two."
        )
    place = _place(request.variant)
    before = _before(request.variant, request.cuda)
    repo = variant.load(_SHIPPED).spec.runtime.comfyui.repo
    with tempfile.TemporaryDirectory(prefix="podkiln-comfyui-") as scratch:
        found = _checkout(request, repo, [place, releases.SHIPPED], Path(scratch))
        source = comfyui_source.read(found.folder)
    _check_python(before, source, found)
    written, problems = _write(found, source, place)
    after = variant.load(request.variant or _SHIPPED, request.cuda, release=found.release)
    before = _compared_with(before, after)
    warnings: list[str] = list(found.notes)
    for described in _to_lock(request, after, found.release):
        written += _lock(described, warnings)
    if request.pin and not problems:  # last: until then the new lock begins with the old one's versions
        written += _pin(found.release)
    return release_report.compare(before, after, found, written, warnings, [str(each) for each in problems])


def _place(name: str | None) -> Path:
    """Return the folder for a release's flags: beside a variant of one's own, or the shipped one."""
    if name is None:
        return releases.SHIPPED
    path = Path(name)
    if path.suffix != ".yaml" or not path.is_file():
        if name in variant.names():
            what = f"--variant {name} is a shipped one, and here it names a file of your own."
            raise UsageError(what, hint="Without it, the release is described for the shipped variants.")
        variant.load(name)  # raises what is wrong with the name
    if document.load(path).data.get("abstract"):
        what = f"{path} is only there to be extended, and a release is locked for a variant that is built."
        raise UsageError(what, hint="Name one that extends it.")
    return path.parent / releases.FOLDER


def _before(name: str | None, cuda: str | None) -> LoadedVariant:
    """Return what was built so far: one's own variant where that can be read, or the shipped ones."""
    try:
        return variant.load(name or _SHIPPED, cuda)
    except DescriptionError:  # it may name the release that is not described yet
        return variant.load(_SHIPPED, cuda)


def _compared_with(before: LoadedVariant, after: LoadedVariant) -> LoadedVariant:
    """Return what was built so far with the CUDA and for the platform of a variant.

    Where it named the release already, that is what the shipped variants come to.
    """
    old, new = before.spec.runtime, after.spec.runtime
    if (old.cuda, before.platform) == (new.cuda, after.platform) and old.comfyui != new.comfyui:
        return before
    return variant.load(_SHIPPED, None if new.cuda == cuda_releases.default() else new.cuda, after.platform)


def _checkout(request: ReleaseRequest, repo: str, places: list[Path], scratch: Path) -> Checkout:
    if request.name == comfyui_checkout.NEWEST:
        named = comfyui_checkout.newest(repo)
    else:
        named = comfyui_checkout.Named.parse(request.name)
    if request.source:
        return comfyui_checkout.of_folder(named, request.source, repo, places)
    return comfyui_checkout.fetched(named, repo, scratch)


def _check_python(before: LoadedVariant, source: Source, found: Checkout) -> None:
    wanted = before.spec.runtime.python.version
    if source.python and not SpecifierSet(source.python).contains(f"{wanted}.99"):
        raise before.error(
            ("runtime", "python", "version"),
            f"ComfyUI {found.release} is for Python {source.python}, and this is {wanted}.",
        )


def _write(found: Checkout, source: Source, place: Path) -> tuple[list[Path], tuple[DescriptionError, ...]]:
    """Write a release's files. Returns those that changed, and which rules name what the release lacks.

    Raises DescriptionError, with nothing written: what was read does not make files that can be read again.
    """
    pin = release_text.Pin(found.release, found.repo, found.commit, found.tree)
    texts: Mapping[Path, str] = {
        releases.flags_path(found.release, place): release_text.flags(pin, source.flags),
        releases.folders_path(found.release, place): release_text.folders(pin, source.folders),
        releases.requirements_path(found.release, place): release_text.requirements(pin, source.requirements),
    }
    problems = _read_again(found, source, place, texts)
    written = [path for path, text in texts.items() if atomic.write(path, text)]
    comfyui_flags.check.cache_clear()  # it remembers the files as they were
    return written, problems


def _read_again(
    found: Checkout, source: Source, place: Path, texts: Mapping[Path, str]
) -> tuple[DescriptionError, ...]:
    """Read what will be written, as all that read it later will. Raises DescriptionError of the source."""
    flags, folders = releases.flags_path(found.release, place), releases.folders_path(found.release, place)
    try:
        file = document.load(flags, texts[flags])
        again = releases.read(found.release, file)
        problems = comfyui_flags.agree(again, file, comfyui_flags.DIRECTORY)[1]
    except DescriptionError as wrong:
        raise _of_source(wrong, flags, found.folder / cli_args.FILE, source.flags) from None
    try:
        read = releases.read_folders(found.release, document.load(folders, texts[folders]))
    except DescriptionError as wrong:
        raise _of_source(wrong, folders, found.folder / folder_paths.FILE, ()) from None
    for before, after in zip(source.flags, again.flags, strict=True):
        if any(getattr(before, key) != getattr(after, key) for key in releases.ParsedFlag.model_fields):
            where = f"{found.folder / cli_args.FILE}:{before.line}"
            raise DescriptionError(f"{where}: {before.name} is not read again as it is.", hint=_NOTHING)
    if any(getattr(read, key) != getattr(source.folders, key) for key in ("folders", "outside", "legacy")):
        where = str(found.folder / folder_paths.FILE)
        raise DescriptionError(f"{where}: its folders are not read again as they are.", hint=_NOTHING)
    return problems


def _of_source(
    wrong: DescriptionError, path: Path, source: Path, flags: Sequence[ReadFlag]
) -> DescriptionError:
    """Blame what is wrong with a file that is not written on the source that it was to be made of."""
    said = re.fullmatch(rf"{re.escape(str(path))}:[0-9]+: (.*)", str(wrong), re.DOTALL)
    if said is None:  # of a file that holds for all releases
        return wrong
    row = re.match(r"flags\[([0-9]+)\]", said[1])
    line = f":{flags[int(row[1])].line}" if row and int(row[1]) < len(flags) else ""
    return DescriptionError(f"{source}{line}: {said[1]}", hint=wrong.hint or _NOTHING)


def _pin(release: str) -> list[Path]:
    """Have base.yaml name a release, in the one line where it does. Raises DescriptionError."""
    file = document.load(_BASE)
    key = ("runtime", "comfyui", "version")
    number = file.line(key) - 1
    lines = _BASE.read_text(encoding="utf-8").splitlines(keepends=True)
    changed, count = re.subn(r'^(\s*version:\s*)"[^"]+"', rf'\g<1>"{release}"', lines[number])
    if not file.has(key) or not count:
        raise file.error(key, 'expected `version: "RELEASE"` on one line, to be changed.')
    lines[number] = changed
    return [_BASE] if atomic.write(_BASE, "".join(lines)) else []


def _to_lock(request: ReleaseRequest, after: LoadedVariant, release: str) -> list[LoadedVariant]:
    """Return what is locked: one variant a runtime, of the shipped ones for each CUDA and platform."""
    if not request.lock:
        return []
    if request.variant or request.cuda:
        return [after]
    others = cuda_releases.runtimes()[1:]
    return [after, *(variant.load(_SHIPPED, cuda, platform, release=release) for cuda, platform in others)]


def _lock(described: LoadedVariant, warnings: list[str]) -> list[Path]:
    """Lock the Python packages; Debian's are those of the base, whichever release is built."""
    written = runtime.relock(described, (), warnings)
    for each in _with_the_same_runtime(described):
        written += nodes.relock(each, (), warnings)
        written += serving.relock(each, ())
    found = locations.apt_folders(described)
    target, known = found[0], found[-1]
    if locations.user_lock_dir(described) is None and not target.exists() and known.is_dir():
        shutil.copytree(known, target)
        written = [*written, target]
    return written


def _with_the_same_runtime(described: LoadedVariant) -> list[LoadedVariant]:
    """Return the variants for which more is locked with a runtime: all shipped ones, or one's own."""
    if not described.shipped:
        return [described]
    release, platform = described.spec.runtime.comfyui.version, described.platform
    return [variant.load(name, described.cuda, platform, release=release) for name in variant.names()]
