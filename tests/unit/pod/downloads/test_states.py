"""The states: words of fetch.json, each in its group."""

from __future__ import annotations

import json

from pod.downloads.states import ACTIVE, OVER, RunState, State


def test_they_are_words_of_fetch_json() -> None:
    assert json.dumps([*State]) == (
        '["queued", "resolving", "checking", "waiting", "fetching", "verifying", '
        '"present", "fetched", "failed", "stopped"]'
    )
    assert json.dumps([*RunState]) == '["running", "done", "failed", "stopped"]'
    assert "fetched" in OVER
    assert f"{State.FETCHED:<9}|" == "fetched  |"


def test_a_file_waits_its_turn_is_in_work_or_is_over() -> None:
    assert sorted([State.QUEUED, *ACTIVE, *OVER]) == sorted(State)
    assert sorted(ACTIVE) == ["checking", "fetching", "resolving", "verifying", "waiting"]
