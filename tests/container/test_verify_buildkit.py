"""Layers as BuildKit writes them from ordinary steps have one reading: `verify --deep` calls them right."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from podkiln.oci import layout
from podkiln.verify import runtime_layers

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.build.base_image import BaseLayout

pytestmark = pytest.mark.engine

DOCKERFILE = r"""
FROM scratch AS base
FROM base AS image
RUN mkdir -p /usr/share/a/b /usr/share/d/e && echo 1 >/usr/share/a/f && ln /usr/share/a/f /usr/share/a/g \
    && ln -s ../a /usr/share/c && ln /usr/share/c /usr/share/hard && mkfifo /usr/share/a/p \
    && touch "/usr/share/a/ß字" "/usr/share/a/with blank" && chmod 4755 /usr/share/a/f \
    && mkdir /usr/share/ab && cd /usr/share && long=$(printf 'x%.0s' $(seq 200)) \
    && mkdir -p $long/$long && touch $long/$long/$long \
    && ln -s $long/$long far && chown 4000000:4000000 /usr/share/a/f
COPY capable /usr/bin/capable
RUN rm -r /usr/share/a/b && rm /usr/share/c && mkdir /usr/share/c && touch /usr/share/c/x
RUN rm -r /usr/share/d && mkdir /usr/share/d && touch /usr/share/d/new
RUN rm -r /usr/share/ab && echo x >/usr/share/ab
RUN mv /usr/share/a /usr/share/moved && ln -s moved /usr/share/a && rm /usr/share/ab && mkdir /usr/share/ab
RUN true
WORKDIR /usr/share/made
"""


@pytest.mark.parametrize("compression", ["zstd", "gzip", "uncompressed"])
def test_what_buildkit_writes_is_right(bootstrap_base: BaseLayout, tmp_path: Path, compression: str) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "capable").write_bytes(b"x")
    os.setxattr(tmp_path / "capable", "security.capability", b"\x01\0\0\x02" + b"\0\x04\0\0" + bytes(12))
    options = f"tar=false,rewrite-timestamp=true,compression={compression},force-compression=true"
    argv = ["docker", "buildx", "build", "--provenance=false", "--target", "image"]
    argv += ["--build-context", f"base=oci-layout://{bootstrap_base.path}"]
    argv += ["--output", f"type=oci,dest={tmp_path}/layout,{options},oci-mediatypes=true", str(tmp_path)]
    env = {**os.environ, "SOURCE_DATE_EPOCH": "1786579200"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    made = layout.read(tmp_path / "layout")
    layers = zip(made.manifest.layers, made.config.diff_ids, strict=True)
    contents = [
        runtime_layers.read(number, blob, diff_id, made.chunks(blob))
        for number, (blob, diff_id) in enumerate(layers)
    ]
    assert list(runtime_layers.findings(contents)) == []
    assert sum(len(each.members) for each in contents) > 1000
