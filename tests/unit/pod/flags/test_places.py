"""The folders that a user gives ComfyUI to write to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pod.errors import PodError
from pod.flags import places
from pod.flags.arguments import Flag, FlagUse, ParsedArgs
from pod.hardware.mounts import Mount
from pod.volume.volume import usual

if TYPE_CHECKING:
    from pathlib import Path


def given(value: str, name: str = "--output-directory") -> FlagUse:
    return FlagUse(Flag(name, "one"), (value,))


@pytest.mark.parametrize("value", ["~/out", "$HOME/out", "/data/${X}", "", " ", "/proc/x", "/sys"])
@pytest.mark.parametrize("name", ["--output-directory", "--base-directory"])
def test_what_can_be_no_folder_is_refused(value: str, name: str) -> None:
    with pytest.raises(PodError) as refused:
        places.check([given(value, name)], "COMFYUI_ARGS")
    assert refused.value.exit_code == 64
    assert str(refused.value).startswith(f"COMFYUI_ARGS: {name}")


def test_a_plain_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for value in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(PodError, match="cannot be a folder to write to"):
            places.check([given(str(value))], "COMFYUI_ARGS")
    places.check([given(str(tmp_path / "new" / "folder"))], "COMFYUI_ARGS")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("out", "/opt/ComfyUI/out"),
        ("/data/out", "/data/out"),
        ("/workspace/out", None),
        ("/workspacex", "/workspacex"),
    ],
)
def test_what_lies_outside_of_the_volume_is_warned_about(value: str, said: str | None) -> None:
    mounted = [Mount("/workspace", "nfs4", read_only=False)]
    found = list(places.outside(ParsedArgs((given(value),)), usual("/workspace"), mounted))
    assert [f"is {said}, which is outside" in one.message for one in found] == [True] * (said is not None)
    assert list(places.outside(ParsedArgs((given(value),)), usual("/workspace"), [])) == []
    assert (
        list(places.outside(ParsedArgs((given(value, "--temp-directory"),)), usual("/workspace"), mounted))
        == []
    )
