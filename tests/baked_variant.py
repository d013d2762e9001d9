"""A variant that bakes two large files and two small ones, which the local hub serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from images import build

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from images import Image
    from servers.hub import Hub

BIG = 70 << 20  # above the size from which a file is a layer of its own
SMALL = 1 << 20
HEAD = """
extends: lazy
title: Bakes
description: Files of our own.
models: {offer: [], default: [acme], bake: [acme]}
define:
  acme:
    title: Acme
    summary: Two large files and two small ones.
    licence: {id: MIT, commercial: true, bake: "yes"}
    tiers: [consumer]
    needs: {vram_gb: 1, ram_gb: 1}
    files:
"""
FILE = "      - {{huggingface: acme/weights, path: {}, folder: checkpoints, size: {}, sha256: {}}}\n"
SIZES = {"a.safetensors": BIG, "s.safetensors": SMALL, "b.safetensors": BIG, "t.safetensors": SMALL}


def serve(hub: Hub) -> dict[str, str]:
    """Put the files on a hub; return the sha256 of each."""
    return {
        name: hub.add("acme/weights", name, size, seed=number).sha256
        for number, (name, size) in enumerate(SIZES.items())
    }


def describe(folder: Path, hashes: dict[str, str]) -> Path:
    """Write a variant that bakes files of these hashes."""
    rows = [FILE.format(name, size, hashes[name]) for name, size in SIZES.items()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "bakes.yaml"
    path.write_text(HEAD + "".join(rows))
    return path


def bake(variant: Path, out: Path, hub: Hub, *options: str) -> Image:
    """Build the variant, with the weights from a hub."""
    return build([str(variant)], out, *options, env={"HF_ENDPOINT": hub.url}).images["bakes"]


def pushing(host: str) -> Sequence[str]:
    """Return the options that push to a registry."""
    return ("--push", "--registry", f"{host}/team", "--allow-substituted")
