"""What a model lacks before somebody can run it: files, nodes, an example workflow; and who mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from podkiln.config import catalog, workflow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from podkiln.config.catalog import VariantModel
    from podkiln.lock.schema import LockedFile

_MENDS: Final = {
    "node": "for who builds: `nodes:` of the variant",
    "model": "for who builds: `models.offer` of the variant",
    "runtime": "another program, and no image here has it",
    "weights": "for who runs it: to be put on the volume by hand",
}


def missing(offer: VariantModel, files: Sequence[LockedFile], *, held: bool) -> list[str]:
    """Return what a model lacks, each with who can mend it; nothing when it is ready.

    Args:
        offer: The model as a variant has it.
        files: What is known of its files, in the order of the description.
        held: Whether the lock holds all of them as they are described.
    """
    return [*_files(offer, files, held=held), *_needs(offer), *_workflow(offer)]


def _files(offer: VariantModel, files: Sequence[LockedFile], *, held: bool) -> Iterator[str]:
    pairs = [(file, known) for file, known in zip(offer.model.files, files, strict=True) if not file.optional]
    open_ = [(file, known) for file, known in pairs if not known.resolved]
    if open_:
        lacking = dict.fromkeys(part for _, known in open_ for part in known.lacking)
        refused = any(file.pickle and not known.sha256 for file, known in open_)
        pods = "pods refuse pickles until then" if refused else "pods ask it by themselves"
        yield (
            f"{len(open_)} of {len(pairs)} files unresolved: no {' and no '.join(lacking)} "
            f"(for who builds: `./build.py lock` where the hub answers; {pods})"
        )
    elif not held:
        yield "not locked yet (for who builds: `./build.py lock`)"


def _needs(offer: VariantModel) -> Iterator[str]:
    """Yield what the image lacks. That its custom nodes can be imported is a test of the build itself."""
    for want in offer.unmet:
        yield f"needs {want} ({_MENDS[want.partition(':')[0]]})"


def _workflow(offer: VariantModel) -> Iterator[str]:
    """Yield that a model of the catalogue has no example; what another program runs wants none."""
    ours = offer.entry.source.path.parent == catalog.MODELS
    elsewhere = any(want.startswith("runtime:") for want in offer.model.requires)
    if ours and not elsewhere and not workflow.path_of(offer.id).is_file():
        yield f"no example workflow (for contributors: variants/workflows/{offer.id}{workflow.API})"
