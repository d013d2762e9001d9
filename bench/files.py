"""The weights of a benchmark: random bytes, which no compressor makes smaller, and a variant of them."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_BLOCK = 1 << 20
_HEAD = """\
extends: lazy
title: Benchmark
description: Weights of random bytes.
models: {offer: [], default: [], bake: [bench]}
define:
  bench:
    title: Benchmark
    summary: Files of random bytes.
    licence: {id: MIT, commercial: true, bake: "yes"}
    tiers: [consumer]
    needs: {vram_gb: 1, ram_gb: 1}
    files:
"""
_SOURCE = "huggingface: bench/weights, path: {0.name}, folder: checkpoints"
_FILE = f"      - {{{{{_SOURCE}, size: {{0.size}}, sha256: {{0.sha256}}}}}}\n"


@dataclass(frozen=True)
class File:
    """One file: its bytes follow from its seed."""

    name: str
    size: int
    sha256: str


def make(folder: Path, count: int, size: int) -> list[File]:
    """Return `count` files of `size` bytes; those that an earlier run has left are taken as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_make(folder, f"w{seed}-{size}.safetensors", size, seed) for seed in range(count)]


def _make(folder: Path, name: str, size: int, seed: int) -> File:
    path, note = folder / name, folder / f".{name}.json"
    if note.exists() and path.exists() and path.stat().st_size == size:
        return File(**json.loads(note.read_text()))
    noise, hashed = random.Random(seed), hashlib.sha256()  # noqa: S311 - the same bytes each time
    with path.open("wb") as out:
        for start in range(0, size, _BLOCK):
            block = noise.randbytes(min(_BLOCK, size - start))
            hashed.update(block)
            out.write(block)
    made = File(name, size, hashed.hexdigest())
    note.write_text(json.dumps(made.__dict__))
    return made


def describe(files: Sequence[File], path: Path) -> Path:
    """Write a variant that bakes the files; the hub's address comes from HF_ENDPOINT."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_HEAD + "".join(_FILE.format(file) for file in files))
    return path
