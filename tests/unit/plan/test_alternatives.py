"""Ways out of a layer that is too large: each names what to bake, where to push, or which line to change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from plans import plan_of

from podkiln.config import catalog
from podkiln.plan import alternatives, registry_limits
from podkiln.plan.alternatives import OversizedFile

if TYPE_CHECKING:
    from pathlib import Path

RATE = 40_000_000
MODEL = """\
  {name}:
    title: t
    summary: s
    family: own
    licence: {{id: MIT, bake: "yes"}}
    tiers: [consumer]
    needs: {{vram_gb: 8, ram_gb: 8}}
    files:
"""
FILE = """\
      - url: https://example.com/{name}.safetensors
        folder: {folder}
        precision: {precision}
        optional: {optional}
        size: {size}
        sha256: {sha256}
"""
GUESSED = """\
      - huggingface: a/b
        path: guessed.safetensors
        folder: unet
        precision: fp8
        optional: true
        size_approx: 9950000000
        sha256: unresolved
"""


@pytest.fixture(autouse=True)
def known_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that these tests know: another file in variants/registries/ is another way out."""
    hosts = (
        "ghcr.io",
        "docker.io",
        "quay.io",
        "registry.gitlab.com",
        "public.ecr.aws",
        "*.dkr.ecr.*.amazonaws.com",
    )
    known = tuple(each for each in registry_limits.load() if each.host in hosts)
    assert len(known) == len(hosts)
    monkeypatch.setattr(registry_limits, "load", lambda: known)


def file(name: str, size: int, precision: str = "bf16", folder: str = "unet", optional: bool = True) -> str:
    given = {"name": name, "folder": folder, "precision": precision, "size": size, "sha256": "a" * 64}
    return FILE.format(optional=str(optional).lower(), **given)


def ways(tmp_path: Path, *files: str, host: str = "ghcr.io", rate: int = RATE, also: str = "") -> list[str]:
    """Return the alternatives to the first file of a model of one's own."""
    path = tmp_path / f"mine{len(list(tmp_path.iterdir()))}.yaml"  # plans are kept by name
    path.write_text(
        "extends: lazy\ntitle: t\ndescription: d\nmodels:\n  offer: [big]\n  bake: [big]\n"
        f"define:\n{MODEL.format(name='big')}{''.join(files)}{also}"
    )
    found = plan_of(str(path), no_weights=False)
    offer = next(each for each in found.offered if each.id == "big")
    registry = registry_limits.find_limits(host)
    assert registry
    large = OversizedFile(offer, offer.model.files[0], offer.model.files[0].size or 0, registry, rate)
    entries = {each.id: each.entry for each in found.offered}
    return list(alternatives.of(large, found.described, entries))


LARGE = file("x-bf16", 24 * 10**9, optional=False)


def test_another_precision_of_the_model_is_named(tmp_path: Path) -> None:
    found = ways(tmp_path, LARGE, file("x-fp8", 9 * 10**9, "fp8"))
    assert found[0] == (
        "Bake its fp8 file unet/x-fp8.safetensors (9.0 GB): describe big again under `define:`, "
        "with the large file optional."
    )


@pytest.mark.parametrize(
    "other",
    [
        file("x-fp16", 12 * 10**9, "fp16"),
        file("x-lora", 10**9, folder="loras"),
        file("x-2", 10**9, optional=False),
        GUESSED,
    ],
    ids=["too large as well", "another folder", "part of the model", "about the limit"],
)
def test_no_file_is_named_that_would_not_do(tmp_path: Path, other: str) -> None:
    assert [each[:7] for each in ways(tmp_path, LARGE, other)] == ["Push to", "Fetch i"]


def test_a_smaller_model_of_the_family_is_named(tmp_path: Path) -> None:
    small = MODEL.format(name="small") + file("s", 3 * 10**9, folder="vae", optional=False)
    found = ways(tmp_path, LARGE, also=small)
    assert found[0] == "Bake small in its place (3.0 GB, of the same family)."
    one_too_large = small + file("t", 30 * 10**9, folder="vae", optional=False)
    assert not any("family" in each for each in ways(tmp_path, LARGE, also=one_too_large))


def test_what_is_not_locked_yet_says_so() -> None:
    shipped = catalog.load()
    large = next(each for each in plan_of("lazy").offered if each.id == "wan21-t2v-14b")
    registry = registry_limits.find_limits("ghcr.io")
    assert registry
    found = OversizedFile(large, large.model.files[0], 14_300_000_000, registry, RATE)
    ways_out = alternatives.of(found, plan_of("lazy").described, shipped)
    assert ways_out[0] == (
        "Bake wan21-t2v-1.3b in its place (9.8 GB, of the same family); "
        "`./build.py lock` has to find its sha256 first."
    )


@pytest.mark.parametrize(
    ("host", "size", "rate", "says"),
    [
        ("ghcr.io", 24, RATE, "Push to Amazon ECR (layers up to 54.5 GB)."),
        ("ghcr.io", 15, RATE, "Push to Amazon ECR (layers up to 54.5 GB) or Quay (layers up to 20.0 GB)."),
        (
            "ghcr.io",
            9,
            10**7,
            "Push to Amazon ECR (layers up to 54.5 GB), Quay (layers up to 20.0 GB), Amazon",
        ),
    ],
)
def test_registries_that_take_it_are_named(
    tmp_path: Path, host: str, size: int, rate: int, says: str
) -> None:
    found = ways(tmp_path, file("x", size * 10**9, optional=False), host=host, rate=rate)
    assert found[-2].startswith(says)
    assert "GitHub" not in found[-2], "the one that refuses is no way out"


def test_a_layer_that_no_registry_takes_is_fetched_at_start(tmp_path: Path) -> None:
    assert ways(tmp_path, file("x", 60 * 10**9, optional=False)) == [
        "Fetch it at start: take big out of `bake:` (mine0.yaml:6), or build with --no-weights."
    ]
