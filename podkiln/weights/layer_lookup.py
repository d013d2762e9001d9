"""Where to find a layer that was made before, without its sources: the cheapest place first.

It is in the repository that is pushed to; or in another of the same registry, which mounts it; or in another
registry, from which it is copied. Where earlier bakes put it stands in the lock (podkiln.lock.layers).
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Self

from podkiln.errors import IntegrityError, RegistryError
from podkiln.oci.reference import Reference
from podkiln.registry.cancellation import CancelledError
from podkiln.registry.client import Repository

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podkiln.oci.spec import Descriptor, Digest
    from podkiln.plan.plan import ReuseKind
    from podkiln.registry.options import RegistryOptions

log = logging.getLogger(__name__)

_ATTEMPTS: Final = 2  # a place that may have gone since is not worth much patience
_SECONDS: Final = 20.0


@dataclass(frozen=True)
class LayerSources:
    """Repositories beside the one that is pushed to.

    Attributes:
        mount_from: Repositories of the same registry, by name without the host.
        copy_from: Repositories of any registry.
        remembered: Layer -> repositories that an earlier bake put it in.
    """

    mount_from: Sequence[str] = ()
    copy_from: Sequence[Reference] = ()
    remembered: Mapping[Digest, Sequence[Reference]] = field(default_factory=dict)

    def neighbours(self, target: Reference, digest: Digest | None = None) -> tuple[str, ...]:
        """Return the repositories of the target's registry that may hold one layer, or any."""
        known = self.remembered.values() if digest is None else [self.remembered.get(digest, ())]
        nearby = [*self.copy_from, *(place for places in known for place in places)]
        names = [*self.mount_from, *(place.repository for place in nearby if place.host == target.host)]
        return tuple(name for name in dict.fromkeys(names) if name != target.repository)

    def candidates(self, digest: Digest) -> tuple[Reference, ...]:
        """Return the repositories to copy one layer from, those that the user named first."""
        return tuple(dict.fromkeys([*self.copy_from, *self.remembered.get(digest, ())]))


class SourceRepositories:
    """The repositories that layers may be copied from, each opened once. A context manager.

    Unreachable repositories are logged once and skipped afterwards.
    """

    def __init__(
        self, places: LayerSources, settings: RegistryOptions, *, besides: Reference | None = None
    ) -> None:
        self._places = places
        self._settings = settings
        self._besides = besides.name if besides else None
        self._lock = threading.Lock()
        self._open: dict[str, Repository] = {}
        self._deaf: set[str] = set()
        self._cancelled = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for repository in self._open.values():
            repository.transport.__exit__()

    def holder(self, blob: Descriptor) -> Repository | None:
        """Return a repository that holds a layer."""
        places = [each for each in self._places.candidates(blob.digest) if each.name != self._besides]
        return next((found for place in places if (found := self._asked(place, blob))), None)

    def cancel(self) -> None:
        """Let all that reads from them end soon, with CancelledError."""
        with self._lock:
            self._cancelled = True
            opened = list(self._open.values())
        for repository in opened:
            repository.transport.cancel()

    def _asked(self, place: Reference, blob: Descriptor) -> Repository | None:
        if place.name in self._deaf:
            return None
        repository = self._repository(place)
        try:
            return repository if repository.blob_exists(blob) else None
        except CancelledError:
            raise
        except (RegistryError, IntegrityError) as failure:
            self._deaf.add(place.name)
            log.warning("%s is not asked for layers: %s", place.name, failure)
            return None

    def _repository(self, place: Reference) -> Repository:
        with self._lock:
            if self._cancelled:
                raise CancelledError("given up")
            if place.name not in self._open:
                self._open[place.name] = Repository(place, self._settings)
            return self._open[place.name]


def brief(settings: RegistryOptions) -> RegistryOptions:
    """Return options for optional requests: short timeouts, few tries."""
    return replace(settings, attempts=_ATTEMPTS, timeout=_SECONDS)


def probe(
    target: Reference, blobs: Sequence[Descriptor], places: LayerSources, settings: RegistryOptions
) -> dict[Digest, ReuseKind]:
    """Tell which layers a push would find, and how; what is not named would be made from its sources.

    Raises RegistryError when the target cannot be asked.
    """
    found: dict[Digest, ReuseKind] = {}
    asked = brief(settings)
    near = {
        blob.digest: [Reference(target.host, name) for name in places.neighbours(target, blob.digest)]
        for blob in blobs
    }
    with (
        Repository(target, asked) as there,
        SourceRepositories(LayerSources(remembered=near), asked) as neighbours,
        SourceRepositories(places, asked, besides=target) as origins,
    ):
        for blob in blobs:
            if there.blob_exists(blob):
                found[blob.digest] = "existing"
            elif neighbours.holder(blob):
                found[blob.digest] = "mounted"
            elif origins.holder(blob):
                found[blob.digest] = "copied"
    return found
