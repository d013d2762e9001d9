"""flags.json as a pod reads it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pod.errors import PodError
from pod.flags import rules

if TYPE_CHECKING:
    from pathlib import Path


def test_it_survives_the_way_through_a_file(tmp_path: Path, flags_json: dict[str, Any]) -> None:
    """JSON has string keys only; classes are numbers."""
    path = tmp_path / "flags.json"
    path.write_text(json.dumps(flags_json), encoding="utf-8")
    loaded = rules.load(path)
    assert loaded == rules.from_json(flags_json)
    assert loaded.profiles["dynamic"].classes[24].args == ()
    assert loaded.catalogue.flags["--cache-ram"].bounds == (0, 2)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"schema": 2}', '{"schema": 1, "flags": [{"nme": 1}]}']
)
def test_damage_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "flags.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PodError, match="is damaged or of another podkiln") as damaged:
        rules.load(path)
    assert damaged.value.exit_code == 65


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        PodError, match=r"flags\.json cannot be read \(No such file or directory\)"
    ) as missing:
        rules.load(tmp_path / "flags.json")
    assert missing.value.exit_code == 65


def test_common_arguments_are_filled_in(known: rules.Rules) -> None:
    assert known.common_for(9000, "/r") == ("--listen=0.0.0.0", "--port=9000", "--disable-auto-launch")


def test_modes_are_ranked_by_offloading(known: rules.Rules) -> None:
    ranks = [
        known.offloading(mode) for mode in ("model_full_load", "model_cpu_offload", "sequential_cpu_offload")
    ]
    assert ranks == sorted(ranks)
    assert ranks[0] == 0
