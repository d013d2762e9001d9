"""The model folders of a ComfyUI version: every key, and the old names that volumes still have."""

from __future__ import annotations

import pytest

from podkiln import folders
from podkiln.errors import DescriptionError


def test_each_folder_holds_itself_first_and_then_its_old_names() -> None:
    places = folders.load("0.33.0").places()
    assert places["checkpoints"] == ["checkpoints"]
    assert places["text_encoders"] == ["text_encoders", "clip"]
    assert places["diffusion_models"] == ["diffusion_models", "unet"]
    assert places["controlnet"] == ["controlnet", "t2i_adapter"]


def test_what_lies_outside_of_models_is_no_place_for_models() -> None:
    assert not {"custom_nodes", "datasets"} & folders.load("0.33.0").places().keys()


def test_a_version_nobody_has_described_is_one_sentence() -> None:
    with pytest.raises(DescriptionError, match=r"the model folders of ComfyUI 9\.9\.9 are not known"):
        folders.load("9.9.9")
