"""A lock that is there and cannot be read is no lock that is not there: nothing in it is thrown away."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from descriptions import FILE, SHA
from model_locks import civitai, entry, from_hub

from podkiln.errors import LockError

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_locks import ModelLocks
    from servers.hub import Hub


DAMAGE: dict[str, Callable[[str], str]] = {
    "conflict": lambda text: f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> theirs\n",
    "truncated": lambda text: text[: len(text) // 2],
    "empty": lambda _: "",
    "another shape": lambda text: text.replace('"sha256"', '"hash"'),
    "wrong value": lambda text: text.replace('"size": ', '"size": -'),
}


def locked(hub: Hub, house: ModelLocks) -> str:
    """Lock three files, and return the lock's text."""
    hub.add("org/repo", "model.safetensors", 5000)
    hub.add_civitai(90, "pony.safetensors", b"x" * 5)
    house.describe("mine", FILE, civitai())
    house.describe("other", from_hub(sha256=SHA, size=5, path="listed.safetensors"))
    hub.add("org/repo", "listed.safetensors", b"hello")
    house.relock()
    return house.lock.read_text()


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_and_a_hub_out_of_reach_leave_the_lock_as_it_is(
    kind: str, hub: Hub, house: ModelLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, every hash in it was overwritten with null, and that ended with 0."""
    damaged = DAMAGE[kind](locked(hub, house))
    house.lock.write_text(damaged)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("CIVITAI_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        LockError, match="it was left as it is, since 3 of its files could not be found"
    ) as raised:
        house.relock()
    assert raised.value.exit_code == 4
    assert str(house.lock) in str(raised.value)
    assert "the first of them mine: checkpoints/model.safetensors: 127.0.0.1:9 could not be asked" in str(
        raised.value
    )
    assert raised.value.hint
    assert house.lock.read_text() == damaged


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_mended_where_all_is_found_anew_and_that_is_said(
    kind: str, hub: Hub, house: ModelLocks
) -> None:
    hub.add("org/repo", "model.safetensors", 5000)
    hub.add_civitai(90, "pony.safetensors", b"x" * 5)
    house.describe("mine", FILE, civitai())
    house.relock()
    text = house.lock.read_text()
    house.lock.write_text(DAMAGE[kind](text))
    (warning,) = house.relock().warnings
    assert "everything that it may have held was found again: compare before you commit." in warning
    assert house.lock.read_text() == text


def test_one_file_that_is_not_found_anew_is_enough_to_leave_it(hub: Hub, house: ModelLocks) -> None:
    hub.add("org/repo", "model.safetensors", 5000)
    hub.add("org/repo", "late.safetensors", 5000)
    house.describe("mine", FILE, from_hub("late.safetensors"))
    house.relock()
    hub.repositories["org/repo"].commits[hub.repositories["org/repo"].head].pop("late.safetensors")
    house.lock.write_text("{")
    with pytest.raises(
        LockError, match=r"1 of its files .* mine: checkpoints/late.safetensors: org/repo has no file"
    ):
        house.relock()
    assert house.lock.read_text() == "{"


def test_a_commit_that_only_the_lock_knew_is_found_anew_too(
    hub: Hub, house: ModelLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hash and size of this file stand in its description; the commit did not."""
    file = hub.add("org/repo", "model.safetensors", 5000)
    house.describe("mine", from_hub(sha256=file.sha256, size=5000))
    house.lock.write_text("{")
    house.relock()
    assert house.only() == (hub.repositories["org/repo"].head, 5000, file.sha256)
    house.lock.write_text("{")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(LockError, match="left as it is"):
        house.relock()


def test_a_newer_lock_is_never_written_over(hub: Hub, house: ModelLocks) -> None:
    newer = locked(hub, house).replace('"schema_version": 1', '"schema_version": 2')
    house.lock.write_text(newer)
    with pytest.raises(LockError, match="it has schema_version 2, and this podkiln knows 1") as raised:
        house.relock("all")
    assert "Update podkiln" in str(raised.value.hint)
    assert house.lock.read_text() == newer


def test_a_folder_in_the_locks_place_is_damage(hub: Hub, house: ModelLocks) -> None:
    house.describe("mine", entry(huggingface="org/none", path="a.bin"))
    house.lock.mkdir(parents=True)
    with pytest.raises(LockError, match="it is not a file"):
        house.relock()


def test_without_damage_a_hub_out_of_reach_loses_nothing(
    hub: Hub, house: ModelLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = json.loads(locked(hub, house))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("CIVITAI_ENDPOINT", "http://127.0.0.1:9")
    assert house.relock("all").changed == []
    assert json.loads(house.lock.read_text()) == before
