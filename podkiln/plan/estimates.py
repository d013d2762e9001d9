"""Measured sizes and times of the runtime: figures that no file or lock holds.

The full runtime of comfyui-0.33.0-cuda-13.0, on 2026-11-27, Docker Engine 26.1.5. Sizes are bytes.
Measure again when the PyTorch or CUDA version changes.
"""

from __future__ import annotations

from typing import Final

COMPRESSED: Final = 3_150_000_000
"""All layers as they are pushed: the sum of `size` in a build's report."""

LARGEST_LAYER: Final = 942_000_000
"""The largest of them: CUDA's math libraries."""

UNPACKED: Final = 8_000_000_000
"""What they take on a pod: `docker images` says 10.5 GB, which is both forms; less the other, rounded up."""

UNPACKING: Final = 4
"""How many times its .debs or wheels an addition takes unpacked: 254 MB of 66 for a compiler."""

_UV_CACHE: Final = 6_600_000_000  # `docker buildx du --verbose`: the cache mount that wheels are unpacked in
_UNPACKED_LAYERS: Final = 7_200_000_000  # the same: each step's layer
_PLAIN_LAYERS: Final = 6_600_000_000  # the same layers as plain tars: BuildKit holds them while it exports
_STREAMED: Final = int(1.3 * COMPRESSED)  # what --no-keep takes beside the engine, at most: bench/rebuild.py
BUILD_DISK: Final = _UV_CACHE + _UNPACKED_LAYERS + _PLAIN_LAYERS + _STREAMED
"""What one build with --no-keep takes of the disk."""

BUILD_SECONDS: Final = 250
"""A build with nothing cached, on 2 cores: `build` of the run in README.md."""
