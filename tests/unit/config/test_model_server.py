"""`serve: diffusers`: what such a variant may not say, since nothing would come of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from descriptions import SHA, write

from podkiln.config import catalog, model_server
from podkiln.config import variant as variants
from podkiln.errors import DescriptionError

if TYPE_CHECKING:
    from pathlib import Path

MINE = "extends: server\ntitle: Mine\ndescription: For a test.\n"
OF_LAZY = "extends: lazy\ntitle: Mine\ndescription: For a test.\nserve: diffusers\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{MINE}nodes: [kjnodes]\n", "4: nodes: with `serve: diffusers` the image has no ComfyUI"),
        (f"{MINE}nodes: {{add: [kjnodes]}}\n", "4: nodes: "),
        (f"{MINE}preset: scail\n", "4: preset: "),
        (f"{MINE}profile: conservative\n", "4: profile: "),
        (f"{MINE}runtime: {{comfyui: {{arguments: {{add: [--lowvram]}}}}}}\n", "4: runtime.comfyui: "),
        (f"{MINE}runtime: {{media: false}}\n", "4: runtime.media: "),
        (f"{MINE}models: {{offer: all}}\n", "4: models.offer: "),
        (f"{MINE}models: {{offer: [sdxl-base]}}\n", "4: models.offer: "),
        (
            f"{MINE}models: {{offer: [sdxl-base], default: [sdxl-base], bake: [sdxl-base]}}\n",
            "4: models.default: ",
        ),
        (
            f"{MINE}model: {{id: /opt/models/a.safetensors}}\n",
            "4: model.id: '/opt/models/a.safetensors' is a",
        ),
        (f"{MINE}model: {{id: org/here}}\n", "4: model.id: 'org/here' is a file or folder here"),
        (f"{MINE}model: {{id: org/sd, vae: nothing}}\n", "4: model.vae: 'nothing' names no model"),
        (f"{MINE}model: {{id: https://a.example/a.safetensors}}\n", "write #sha256=… behind it."),
        (f"{MINE}model: {{id: 'https://a.example/a.safetensors?k=v#sha256={SHA}'}}\n", "a login or a query"),
        (f"{MINE}model: {{id: org/sd@v1, revision: v2}}\n", "4: model: MODEL_REVISION='v2' and MODEL_ID="),
        (f"{MINE}model: {{id: org/sd, loras: [org/a, org/b=90]}}\n", "LORAS: 'org/b=90' has the scale 90"),
        (
            f"{MINE}model: {{id: org/sd, loras: ['nothing=0.5']}}\n",
            "4: model.loras[0]: 'nothing' names no",
        ),
        (f"{MINE}serve: http\nmodel: {{id: org/sd}}\n", "5: model: without `serve: diffusers`"),
        (f"{OF_LAZY}models: {{offer: []}}\n", "so custom nodes have no place in it."),
    ],
)
def test_what_is_only_comfyuis_or_nobodys_is_refused_by_its_key(
    text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org/here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "mine.yaml", text)
    with pytest.raises(DescriptionError) as raised:
        variants.load(str(path))
    assert says in str(raised.value)
    assert str(raised.value).endswith(".")


@pytest.mark.parametrize(
    "text",
    [
        f"{MINE}models: {{offer: [sdxl-base], bake: [sdxl-base]}}\n",
        f"{OF_LAZY}nodes: []\nmodels: {{offer: []}}\n",
    ],
)
def test_an_image_without_comfyui_may_have_weights_and_has_none_of_its_packages(
    text: str, tmp_path: Path
) -> None:
    described = variants.load(str(write(tmp_path / "mine.yaml", text)))
    assert [each.baked for each in catalog.offered(described, catalog.load())] == [True] * ("bake" in text)
    kept = [each.name for each in model_server.python_layers(described)]
    theirs = [each.name for each in model_server.python_layers(variants.load("lazy"))]
    assert theirs == [*kept, "comfyui-media", "comfyui"]
