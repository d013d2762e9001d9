"""`./build.py flags` foretells which custom nodes a pod loads, by the code that decides there."""

from __future__ import annotations

import json

import pytest

from podkiln.cli import main

LINE = ["flags", "--vram-mib", "8192", "--variant", "lazy"]


def loaded(line: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the nodes that serve models and are loaded, as decision.json has them."""
    assert main([*LINE, *line, "--json"]) == 0
    nodes = json.loads(capsys.readouterr().out)["nodes"]
    return [each["id"] for each in nodes if each["loaded"] and each["why"] != "in the image for every start"]


def test_it_says_what_a_pod_would_load(capsys: pytest.CaptureFixture[str]) -> None:
    assert loaded([], capsys) == []
    assert loaded(["--models", "cogvideox-5b"], capsys) == ["cogvideoxwrapper"]
    assert loaded(["--nodes", "refocus"], capsys) == ["refocus"]
    assert main(LINE) == 0
    shown = capsys.readouterr()
    assert "--disable-all-custom-nodes --whitelist-custom-nodes ComfyUI-" in shown.out
    assert "ComfyUI-CogVideoXWrapper" not in shown.out
    assert "cogvideoxwrapper (ENABLE_COGVIDEOX_5B=true)" in shown.err


def test_without_a_variant_nothing_is_known_of_nodes_but_where_they_are_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(LINE[:3]) == 0
    assert "custom-nodes" not in capsys.readouterr().out
    for option in ("--models", "--nodes"):
        assert main([*LINE[:3], option, "all"]) == 0
        assert "Custom node cogvideoxwrapper is loaded" in capsys.readouterr().err, option


@pytest.mark.parametrize("line", [["--nodes", "refocuss"], ["--models", "flashportrai"]])
def test_what_a_pod_would_refuse_is_refused(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LINE, *line]) == 2
    said = capsys.readouterr().err
    assert "did you mean" in said
    assert "A pod would refuse it in the same words" in said
