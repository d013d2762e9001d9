"""kept.json: written and read, beside which lock, and what is damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from descriptions import VARIANT, write

from podkiln.config import variant
from podkiln.errors import LockError
from podkiln.lock import kept_image, locations
from podkiln.lock.kept_image import KeptImage, KeptLayer
from podkiln.lock.resolve import relock

if TYPE_CHECKING:
    from pathlib import Path

RUNTIME = "comfyui-0.33.0-cuda-13.0"
DIGEST = "sha256:" + "ab" * 32


def image(repository: str = "registry.example.com/me/kept") -> KeptImage:
    layer = KeptLayer(name="debian for 0123456789ab", recipe=DIGEST, digest=DIGEST, size=7)
    return KeptImage(repository=repository, digest=DIGEST, bases=(), layers=(layer,))


def test_what_is_written_is_read_and_no_news_the_second_time(tmp_path: Path) -> None:
    path = tmp_path / kept_image.FILE
    assert kept_image.read(path) == {}
    assert kept_image.write(path, RUNTIME, image())
    assert not kept_image.write(path, RUNTIME, image())
    assert kept_image.write(path, "other", image("example.com/other"))
    assert kept_image.read(path) == {RUNTIME: image(), "other": image("example.com/other")}
    assert str(image()) == f"registry.example.com/me/kept@{DIGEST}" == str(image().reference)


def test_a_users_own_image_goes_before_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locations, "LOCKS", tmp_path / "shipped")
    mine = variant.load(str(write(tmp_path / "mine.yaml", VARIANT)))
    assert kept_image.find(mine) is None
    kept_image.write(tmp_path / "shipped" / kept_image.FILE, RUNTIME, image("example.com/shipped"))
    assert kept_image.find(mine) == image("example.com/shipped")
    assert kept_image.path_of(mine) == tmp_path / "mine.locks" / kept_image.FILE
    kept_image.write(kept_image.path_of(mine), RUNTIME, image("example.com/mine"))
    assert kept_image.find(mine) == image("example.com/mine")


@pytest.mark.parametrize("wrong", ["sha256:ab", "not a name at all/"])
def test_a_damaged_one_is_refused_by_check_too(wrong: str, tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", VARIANT)
    kept = tmp_path / "mine.locks" / kept_image.FILE
    kept_image.write(kept, RUNTIME, image())
    text = kept.read_text()
    kept.write_text(text.replace(DIGEST, wrong) if ":" in wrong else text.replace(image().repository, wrong))
    with pytest.raises(LockError, match=r"kept\.json cannot be read: images\.") as refused:
        relock.check([str(path)])
    assert "lock --keep REF" in str(refused.value.hint)
