"""A push whose runtime is in the registry: nothing of it is built, read or sent again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from images import SUBSTITUTES, SYSTEM_CA, own_cache, podkiln
from servers import counting_proxy

from podkiln.lock import runtimes
from podkiln.util import cache_folder

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from podkiln.build.base_image import BaseLayout

pytestmark = pytest.mark.engine
VARIANT = "extends: lazy\ntitle: Mine\nruntime: {{stop_seconds: {}}}\n"


class Machine:
    """A builder with a cache of its own that knows the base, and a registry behind a counting proxy."""

    def __init__(self, folder: Path, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.host = folder, host
        self.variant = folder / "mine.yaml"
        monkeypatch.setenv("XDG_CACHE_HOME", str(own_cache(folder / "cache")))

    def push(self, stop_seconds: int) -> tuple[dict[str, Any], subprocess.CompletedProcess[str]]:
        """Build and push; return the report and what was printed."""
        self.variant.write_text(VARIANT.format(stop_seconds))
        options: list[str | Path] = [*SUBSTITUTES, "--ca-bundle", SYSTEM_CA, "--allow-substituted"]
        options += ["--push", "--registry", f"{self.host}/team", "--out", self.folder / "dist"]
        done = podkiln("--variant", self.variant, *options)
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads((self.folder / "dist/mine/report.json").read_text()), done

    def forget(self) -> None:
        """Lose all but what a lock would hold."""
        for name in ("layers", "exports", "uppermost", "pulled"):
            path = self.folder / "cache/podkiln" / name
            if path.exists():
                path.rename(self.folder / f"{name}.lost")


def test_another_start_sh_moves_itself_alone_and_comes_to_the_same_image(
    bootstrap_base: BaseLayout,
    registry: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = counting_proxy.Counts()
    with counting_proxy.serve(registry(), counts) as host:
        machine = Machine(tmp_path, host, monkeypatch)
        first, _ = machine.push(7)
        assert first["runtime"]["uploaded_bytes"] > 100e6
        (tmp_path / "cache/podkiln" / runtimes.FILE).unlink()
        whole, done = machine.push(8)  # a build of everything
        assert "its runtime is in the registry" not in done.stderr
        machine.forget()
        counts.clear()
        quick, done = machine.push(8)
        assert "its runtime is in the registry" in done.stderr
        assert quick["digest"] == whole["digest"]
        assert quick["runtime"]["uploaded_bytes"] == 0
        counts.clear()
        other, _ = machine.push(9)
        sent = sum(counts.pushed().values())
        assert 0 < sent < 2_000_000
        assert sent < 0.02 * sum(layer["size"] for layer in other["layers"])
        assert other["digest"] not in (first["digest"], whole["digest"])
        assert other["layers"][0] == first["layers"][0]
        verified = podkiln("verify", "--variant", machine.variant, "--deep", other["image"])
        assert "substitute" in verified.stderr


def test_a_registry_that_lost_a_layer_gets_a_whole_build(
    bootstrap_base: BaseLayout,
    registry: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(tmp_path, registry(), monkeypatch)
    machine.push(7)
    machine.host = registry()
    again, done = machine.push(7)
    assert "its runtime is in the registry" not in done.stderr
    assert again["runtime"]["uploaded_bytes"] > 100e6
    (known,) = runtimes.read(cache_folder.path() / runtimes.FILE).values()
    assert len(known.places) == 2
