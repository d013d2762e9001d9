"""A hub that the environment names, and models to lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from model_locks import ModelLocks
from servers.hub import Hub

from podkiln.lock.resolve import http
from podkiln.lock.resolve.http import Patience

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("CIVITAI_ENDPOINT", hub.url)
        for name in ("HF_TOKEN", "CIVITAI_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(http, "PATIENCE", Patience(first=0.01, longest=0.02, connect=2, read=1, whole=3))
        yield hub


@pytest.fixture
def house(tmp_path: Path) -> ModelLocks:
    return ModelLocks(tmp_path)
