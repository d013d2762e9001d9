"""ComfyUI's model folders: each key with the directories that hold its files."""

from __future__ import annotations

import pytest

from podkiln.config import model_folders
from podkiln.errors import DescriptionError


def test_old_names_come_after_the_new_one() -> None:
    places = model_folders.load("0.33.0").places()
    assert places["diffusion_models"] == ["diffusion_models", "unet"]
    assert places["text_encoders"] == ["text_encoders", "clip"]
    assert places["loras"] == ["loras"]


def test_folders_beside_the_models_get_no_place() -> None:
    known = model_folders.load("0.33.0")
    assert "custom_nodes" in known.outside
    assert not set(known.outside) & known.places().keys()


def test_every_old_name_belongs_to_a_folder() -> None:
    known = model_folders.load("0.33.0")
    assert set(known.legacy.values()) <= set(known.folders)


def test_an_unknown_version_is_one_sentence() -> None:
    with pytest.raises(DescriptionError, match=r"There is no folders-9\.9\.yaml: .* of ComfyUI 9\.9"):
        model_folders.load("9.9")
