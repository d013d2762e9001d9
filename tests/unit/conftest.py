"""What keeps one unit test from being felt in the next, and a registry to speak to."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from servers.registry import Registry

from podkiln.build import engine
from podkiln.errors import EngineError
from podkiln.oci.reference import Reference
from podkiln.registry import RegistryOptions, Repository
from podkiln.util.open_uploads import UPLOADS

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


@pytest.fixture(autouse=True)
def own_log() -> Generator[None]:
    """Give the log back as it was: a command that is called here makes it its own, on a stderr that ends."""
    log = logging.getLogger("podkiln")
    before = log.handlers[:], log.level, log.propagate
    yield
    log.handlers[:], log.level, log.propagate = before


@pytest.fixture(autouse=True)
def no_upload_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads that an earlier test left open at its registry are no concern of this one."""
    monkeypatch.setattr(UPLOADS, "_open", {})


@pytest.fixture(autouse=True)
def no_registry_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the suite runs is no one's registry: GitHub Actions names one, and developers may."""
    for name in ("PODKILN_REGISTRY", "GITHUB_ACTIONS", "GITHUB_REPOSITORY_OWNER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def no_cache_filled(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What earlier builds left in this user's cache is no concern of a test, nor what a test leaves there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of `lock`, which asks apt in a base where an engine answers."""

    def absent(_: str | None) -> None:
        raise EngineError("No engine answers.")

    monkeypatch.setattr(engine, "require", absent)


@pytest.fixture
def registry() -> Iterator[Registry]:
    """An empty registry on this machine."""
    with Registry() as running:
        yield running


@pytest.fixture
def repository(registry: Registry) -> Iterator[Repository]:
    """A repository there, opened to push to. A request that hangs does so for longer than a test waits."""
    settings = RegistryOptions(attempts=2, backoff=0.01, timeout=30.0, login=lambda _: None)
    with Repository(Reference.parse(f"{registry.host()}/you/app"), settings, push=True) as opened:
        yield opened
