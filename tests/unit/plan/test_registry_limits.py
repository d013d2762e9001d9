"""What registries take: known hosts refuse in one sentence, unknown ones do not limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from descriptions import write

from podkiln.config import document
from podkiln.errors import DescriptionError
from podkiln.plan import registry_limits

if TYPE_CHECKING:
    from pathlib import Path

GB = 10**9
# Those that these tests know; another file in variants/registries/ is another registry, and no change here.
KNOWN = {"Amazon ECR", "Quay", "Amazon ECR Public", "Docker Hub", "GitLab's registry", "GitHub's registry"}


@pytest.mark.parametrize(
    ("host", "size", "words"),
    [
        ("ghcr.io", 20 * GB, "at most 10.0 GB"),
        ("docker.io", 10 * GB + 1, "at most 10.0 GB"),
        ("public.ecr.aws", 10 * GB + 485_760_001, "at most 10.5 GB"),
        ("123.dkr.ecr.eu-west-1.amazonaws.com", 55 * GB, "at most 54.5 GB"),
        ("quay.io", 21 * GB, "at most 20.0 GB"),
    ],
)
def test_a_layer_over_the_limit_is_refused_with_both_figures(host: str, size: int, words: str) -> None:
    refusal = registry_limits.refusal(host, "wan.safetensors", size)
    assert refusal is not None
    assert words in refusal
    assert "wan.safetensors" in refusal


@pytest.mark.parametrize(("host", "size"), [("ghcr.io", 10 * GB), ("quay.io", 20 * GB), ("docker.io", 1)])
def test_a_layer_at_the_limit_is_taken(host: str, size: int) -> None:
    assert registry_limits.refusal(host, "x", size) is None


def test_an_upload_that_takes_too_long_is_refused() -> None:
    refusal = registry_limits.refusal("ghcr.io", "x", 7 * GB, 10_000_000)
    assert refusal is not None
    assert "takes 700 s at 10 MB/s" in refusal
    assert "after 600 s" in refusal
    assert registry_limits.refusal("ghcr.io", "x", 6 * GB, 10_000_000) is None
    assert registry_limits.refusal("quay.io", "x", 7 * GB, 10_000_000) is None, "it has no such limit"


@pytest.mark.parametrize(
    ("host", "largest", "says"),
    [
        ("ghcr.io", 7 * GB, "7.0 GB of at most 10.0 GB, 350 s of at most 600 s at 20 MB/s"),
        ("quay.io", GB, "1.0 GB of at most 20.0 GB, 50 s at 20 MB/s"),
        ("me:5000", GB, "1.0 GB, 50 s at 20 MB/s; its limits are not known"),
    ],
)
def test_the_largest_layer_stands_beside_the_limits(host: str, largest: int, says: str) -> None:
    fit = registry_limits.fit(host, largest, 20_000_000)
    known = registry_limits.find_limits(host)
    assert str(fit) == f"{host}: the largest layer has {says}"
    assert fit.as_json() == {
        "host": host,
        "largest_layer_bytes": largest,
        "most_layer_bytes": known and known.layer_bytes,
        "upload_seconds": largest // 20_000_000,
        "most_upload_seconds": known and known.upload_seconds,
        "bytes_per_second": 20_000_000,
        "source": known and known.source,
    }


@pytest.mark.parametrize(
    ("size", "rate", "names"),
    [
        (53 * GB, 40_000_000, ["Amazon ECR"]),
        (19 * GB, 40_000_000, ["Amazon ECR", "Quay"]),
        (9 * GB, 1_000_000, ["Amazon ECR", "Quay", "Amazon ECR Public", "Docker Hub", "GitLab's registry"]),
        (60 * GB, 40_000_000, []),
    ],
)
def test_registries_that_take_a_layer_are_known_by_name(size: int, rate: int, names: list[str]) -> None:
    assert [each.name for each in registry_limits.taking(size, rate) if each.name in KNOWN] == names


def test_a_registry_that_nothing_is_known_of_does_not_limit() -> None:
    assert registry_limits.refusal("localhost:5000", "x", 10**13) is None


def test_every_limit_names_its_source() -> None:
    assert all(each.source.strip() for each in registry_limits.load())


def test_a_registry_without_a_source_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.yaml", "name: X\nhost: x.example\nsource: ' '\n")
    with pytest.raises(DescriptionError, match=r"x\.yaml:3: source: expected text that is not empty"):
        document.load(path).parse(registry_limits.Registry)
