"""A runtime as BuildKit would make it from a plan's Dockerfile, with layers of a few bytes."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any, NamedTuple

from layouts import layer_of

from podkiln.oci import spec
from podkiln.render.image_config import RenderedConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podkiln.plan.plan import Plan

_NO_LAYER = ("ARG", "ENV", "LABEL", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT")


class Blob(NamedTuple):
    """A layer as it is stored."""

    media_type: str
    data: bytes
    diff_id: str

    @classmethod
    def gzip(cls, tar: bytes) -> Blob:
        """A tar as most layers are stored."""
        return cls(spec.LAYER_GZIP, gzip.compress(tar, mtime=0), spec.digest_of(tar))


class Runtime(NamedTuple):
    """Manifest, config, and the layers in their order."""

    manifest: spec.Manifest
    config: spec.ImageConfig
    layers: tuple[Blob, ...]


def make(plan: Plan, base: Sequence[Blob] = ()) -> Runtime:
    """Return a runtime that is as its plan says. `base`: layers of the base image, one is there anyhow."""
    rendered = RenderedConfig.of(plan)
    layers = [Blob.gzip(layer_of(base="debian")), *base]
    history: list[dict[str, Any]] = [{"created_by": f"base {number}"} for number in range(len(layers))]
    for number, step in enumerate(rendered.steps):
        row: dict[str, Any] = {
            "created": rendered.created,
            "created_by": step.text,
        }
        if step.word in _NO_LAYER:
            row["empty_layer"] = True
        else:
            layers.append(Blob.gzip(layer_of(**{f"step-{number}": "made"})))
        history.append({**row, "comment": "buildkit.dockerfile.v0"})
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": rendered.created,
        "config": rendered.config,
        "history": history,
        "rootfs": {"type": "layers", "diff_ids": [each.diff_id for each in layers]},
    }
    data = spec.canonical_json(document)
    manifest = spec.Manifest(
        spec.MANIFEST,
        spec.Descriptor(spec.CONFIG, spec.digest_of(data), len(data)),
        tuple(spec.Descriptor(each.media_type, spec.digest_of(each.data), len(each.data)) for each in layers),
    )
    return Runtime(manifest, spec.ImageConfig.parse(data, "x"), tuple(layers))
