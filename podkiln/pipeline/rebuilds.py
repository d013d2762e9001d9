"""An image's runtime built again, every step anew and with nothing that earlier builds have kept."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from podkiln.oci.reference import Reference
from podkiln.options import ImageOptions, OutputOptions
from podkiln.pipeline import build
from podkiln.registry import Repository
from podkiln.util import cache_folder, console
from podkiln.verify.rebuilt import Comparison

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from podkiln.oci.layout import Layout
    from podkiln.oci.spec import Digest
    from podkiln.plan.plan import Plan
    from podkiln.registry import RegistryOptions
    from podkiln.verify.image import VerifyResult

log = logging.getLogger(__name__)


def compare(
    made: Plan, verdict: VerifyResult, known: Mapping[Digest, Digest], settings: RegistryOptions
) -> VerifyResult:
    """Build the runtime of an image again, and add to the verdict on it what differs.

    Args:
        made: The image's plan, with the substitutes of the build.
        verdict: On an image that is there.
        known: What the lock remembers: recipe of a bundle -> digest of its layer.
        settings: Options of registry connections.

    Raises what a build raises, RegistryError, and IntegrityError for a build that went wrong.
    """
    if verdict.held is None:
        return verdict
    reference = Reference.parse(verdict.image).with_tag(None).with_digest(verdict.digest)
    with _folder() as folder:
        rebuilt = _built(made, folder)
        with (
            console.Bytes(f"reading {verdict.image}") as bar,
            Repository(reference, settings) as repository,
        ):
            comparison = Comparison(repository, verdict.held, verdict.digest, rebuilt, folder, bar)
            return verdict.with_rebuild(
                comparison.findings(made, known), [each.name for each in made.substituted]
            )


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Give a folder for one rebuild, where there is room for images; it goes. Raises UsageError."""
    with cache_folder.in_use():
        parent = cache_folder.path() / cache_folder.REBUILDS
        parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent) as name:
            yield Path(name)


def _built(made: Plan, folder: Path) -> Layout:
    log.info("%s: its runtime is built again, every step anew.", made.name)
    request = replace(
        made.request,
        image=ImageOptions(),
        output=OutputOptions(out=folder / "out"),
        engine=replace(made.request.engine, no_cache=True, no_keep=True),
    )
    # A wheel that somebody put into BuildKit's cache would be in both images, and so found in neither.
    plan = replace(made, request=request, fresh=True)
    builder = build.prepare_engine(request)
    _, _, (layout,) = build.build_all([plan], request, builder, folder / "cache")
    return layout
