"""A runtime as BuildKit would make it from a plan's Dockerfile, with layers of a few bytes."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from layouts import layer_of

from podkiln.oci import spec
from podkiln.render import build_context
from podkiln.render.image_config import RenderedConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podkiln.plan.plan import Plan
    from podkiln.render.context_file import File

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


def own_layer(instruction: str, files: Mapping[str, File]) -> bytes:
    """Return the tar of a layer of podkiln's own stage, by the instruction that makes it."""
    code = {f"opt/{path}": file for path, file in files.items() if path.startswith("podkiln/")}
    made: dict[str, tuple[bytes, int]] = {}
    if "podkiln/ /opt/podkiln/" in instruction:
        made = {path: (file.content, 0o644) for path, file in code.items()}
    elif " bin/ /usr/local/bin/" in instruction:
        commands = [path for path in files if path.startswith("bin/")]
        made = {f"usr/local/{path}": (files[path].content, 0o755) for path in commands}
    elif "start.sh" in instruction:
        made = {"start.sh": (files["start.sh"].content, 0o755)}
    elif "compile_bytecode.py" in instruction:
        sources = [PurePosixPath(path) for path in code if path.endswith(".py")]
        made = {f"{each.parent}/__pycache__/{each.stem}.cpython-313.pyc": (b"x", 0o644) for each in sources}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for folder in sorted({str(each) for path in made for each in PurePosixPath(path).parents} - {"."}):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        for path, (content, mode) in made.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(content), mode
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def make(plan: Plan, base: Sequence[Blob] = ()) -> Runtime:
    """Return a runtime that is as its plan says. `base`: layers of the base image, one is there anyhow."""
    rendered, files = RenderedConfig.of(plan), build_context.render(plan)
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
            own = own_layer(step.text, files) if number >= rendered.steps_below else None
            layers.append(Blob.gzip(own or layer_of(**{f"step-{number}": "made"})))
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
