"""A blob of one repository as the content of an upload to another: streamed, and checked on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podkiln.errors import IntegrityError, RegistryError
from podkiln.oci import spec
from podkiln.registry.cancellation import CancelledError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podkiln.oci.spec import Descriptor
    from podkiln.registry.client import Repository


class SourceRegistryError(RegistryError):
    """The repository that should hold a blob did not give it, or gave other bytes."""


class RemoteBlob:
    """A blob as `registry.upload.BlobSource`: its last bytes are given out only if all have its digest.

    Args:
        origin: The repository that holds it.
        blob: Which one.
        name: What to call it while it is under way.
    """

    def __init__(self, origin: Repository, blob: Descriptor, name: str) -> None:
        self.name = name
        self.size = blob.size
        self._origin = origin
        self._wanted = blob
        self._restart()

    @property
    def blob(self) -> Descriptor | None:
        """The blob, once all of it has passed and is right."""
        return self._wanted if self._passed == self.size else None

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        """Yield the blob from an offset on. Raises SourceRegistryError, for wrong bytes before the last.

        What comes a second time is not hashed again: were it different, the sink would find another digest.
        """
        if offset > self._passed:
            raise IntegrityError(
                f"{self.name}: {offset} bytes are expected to be there, but {self._passed} were sent."
            )
        if offset == 0:
            self._restart()
        at = offset
        try:
            for chunk in self._origin.pieces(self._wanted, offset):
                self._take(chunk[max(0, self._passed - at) :])
                at += len(chunk)
                yield chunk
        except CancelledError:
            raise
        except (RegistryError, IntegrityError) as failure:
            raise SourceRegistryError(str(failure), hint=failure.hint) from failure

    def _restart(self) -> None:
        self._passed = 0
        self._hash = spec.hasher(self._wanted.digest)

    def _take(self, fresh: bytes) -> None:
        if not fresh:
            return
        self._hash.update(fresh)
        if self._passed + len(fresh) == self.size and not self._wanted.digest.endswith(
            ":" + self._hash.hexdigest()
        ):
            raise IntegrityError(
                f"Registry {self._origin.transport.host} holds something else than {self._wanted.digest} "
                f"under that digest in {self._origin.name}; nothing of it was kept.",
                hint="The registry's storage is damaged: have that blob deleted there.",
            )
        self._passed += len(fresh)
