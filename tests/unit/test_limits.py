"""What registries take: known hosts refuse in one sentence, unknown ones do not limit."""

from __future__ import annotations

import pytest

from podkiln import limits

GB = 10**9


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
    refusal = limits.refusal(host, "wan.safetensors", size)
    assert refusal is not None
    assert words in refusal
    assert "wan.safetensors" in refusal


@pytest.mark.parametrize(("host", "size"), [("ghcr.io", 10 * GB), ("quay.io", 20 * GB), ("docker.io", 1)])
def test_a_layer_at_the_limit_is_taken(host: str, size: int) -> None:
    assert limits.refusal(host, "x", size) is None


def test_an_upload_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UPLOAD_RATE", 10_000_000)
    refusal = limits.refusal("ghcr.io", "x", 7 * GB)
    assert refusal is not None
    assert "takes 700 s at 10 MB/s" in refusal
    assert "after 600 s" in refusal


def test_a_registry_that_nothing_is_known_of_does_not_limit() -> None:
    assert limits.refusal("localhost:5000", "x", 10**13) is None


def test_every_limit_names_its_source() -> None:
    assert all(len(each.source) > 20 for each in limits._load())
