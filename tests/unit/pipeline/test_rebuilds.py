"""A rebuild begins with nothing: whatever earlier builds have kept may be spoilt as the image is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from plans import plan_of

from podkiln.pipeline import build, rebuilds

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_rebuild_uses_nothing_that_earlier_builds_have_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def build_all(plans: Any, request: Any, builder: object, cache: Path) -> Any:
        seen.extend([*plans, request.engine, builder, cache])
        return None, None, (SimpleNamespace(),)

    monkeypatch.setattr(build, "build_all", build_all)
    monkeypatch.setattr(build, "prepare_engine", lambda _: "mine")
    rebuilds._built(plan_of(), tmp_path)
    plan, engine, builder, cache = seen
    assert plan.fresh  # no wheel of BuildKit's cache
    assert (engine.no_cache, engine.no_keep, builder) == (True, True, "mine")
    assert cache.is_relative_to(tmp_path)
