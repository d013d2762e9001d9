"""kept.json: the image in the user's own registry that has the packages of a lock, and where it lies.

`./build.py lock --keep REF` makes it. A build takes Debian's packages and the wheels from it first, and what
it lacks from where the lock says. It says where bytes come from and not what they are, so no digest covers
it. The file lies beside the other locks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field

from podkiln.config.document import TupleOf
from podkiln.config.fields import Digest as Sha256Digest
from podkiln.lock import locations, validation
from podkiln.lock.layers import Place
from podkiln.lock.validation import Locked, Schema, Size, Text
from podkiln.oci import spec
from podkiln.oci.reference import Reference
from podkiln.oci.spec import Digest
from podkiln.util import atomic

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.config.variant import LoadedVariant

FILE: Final = "kept.json"
_DELETE: Final = "Delete it, and keep the packages again: `./build.py lock --keep REF`."


class KeptLayer(Locked):
    """A layer of the image; `recipe` is a digest of what is locked of it: an equal one is not made twice."""

    name: Text
    recipe: Sha256Digest
    digest: Sha256Digest
    size: Size

    @property
    def blob(self) -> spec.Descriptor:
        """The layer as it is stored: packages are packed already, so its tar is not."""
        return spec.Descriptor(spec.LAYER, Digest(self.digest), self.size)


class KeptImage(Locked):
    """The packages of one runtime. `bases`: the base images that lie in the same repository."""

    repository: Place
    digest: Sha256Digest
    bases: TupleOf[Sha256Digest]
    layers: Annotated[TupleOf[KeptLayer], Field(min_length=1, max_length=127)]

    @property
    def reference(self) -> Reference:
        """Its name, by digest."""
        return Reference.parse(self.repository).with_digest(Digest(self.digest))

    def __str__(self) -> str:
        return f"{self.repository}@{self.digest}"


class KeptLock(Locked):
    """kept.json: the image of each runtime, by the runtime's name."""

    schema_version: Schema = validation.SCHEMA
    images: dict[Text, KeptImage]


def path_of(described: LoadedVariant) -> Path:
    """Return where it is written for a variant: with the shipped locks, or those of a user's own file."""
    return (locations.user_lock_dir(described) or locations.LOCKS) / FILE


def find(described: LoadedVariant) -> KeptImage | None:
    """Return the image that has a variant's packages: kept for its own file, or else for the shipped ones.

    Raises LockError for a damaged file.
    """
    for path in (path_of(described), locations.LOCKS / FILE):
        if found := read(path).get(described.spec.runtime.name):
            return found
    return None


def read(path: Path) -> dict[str, KeptImage]:
    """Return the images by runtime; empty without the file. Raises LockError for a damaged one."""
    try:
        return validation.read(path, KeptLock, hint=_DELETE).images
    except FileNotFoundError:
        return {}


def write(path: Path, runtime: str, kept: KeptImage) -> bool:
    """Write down a runtime's image; return whether the file changed. Raises LockError, OSError."""
    with atomic.exclusive(path):
        images = {**read(path), runtime: kept}
        return atomic.write_json(path, KeptLock(images=dict(sorted(images.items()))).model_dump(mode="json"))
