"""Descriptions for tests: small, whole and right, so that a test shows only what it makes wrong."""

from __future__ import annotations

from textwrap import indent
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MODEL = """\
title: A model
summary: For a test.
licence: {id: mit, bake: "yes"}
tiers: [consumer]
needs: {vram_gb: 1, ram_gb: 1}
files:
"""
FILE = """\
- huggingface: org/repo
  path: model.safetensors
  folder: checkpoints
  sha256: unresolved
"""
VARIANT = """\
extends: base
title: Mine
description: For a test.
tier: consumer
models: {offer: [sdxl-base]}
"""
SHA = "0123456789abcdef" * 4


def model(*files: str, more: str = "") -> str:
    """Return a model file; each of `files` is a list entry as FILE is."""
    return MODEL + "".join(files or [FILE]) + more


def variant(more: str = "", **models: str) -> str:
    """Return a variant; `models` are defined in it, by id."""
    defined = "".join(f"  {name}:\n{indent(text, '    ')}" for name, text in models.items())
    return VARIANT + more + (f"define:\n{defined}" if defined else "")


def write(path: Path, text: str) -> Path:
    """Write a description and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
