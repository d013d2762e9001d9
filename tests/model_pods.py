"""A pod that serves a model over a local hub, and a pipeline for the hub: empty weights, real names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from podkiln.config import families
from server import settings
from server.weights.gather import Gatherer

if TYPE_CHECKING:
    from pathlib import Path

    from servers.hub import Hub

    from server.weights.model_files import ModelFiles

WEIGHTS = (
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
)
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "safety_checker": [None, None],
}


class Pod:
    """A pod with a volume, and everything that it said."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.folder, self.hub, self.said = folder, hub, list[str]()
        (folder / "root").mkdir(parents=True)
        (folder / "root/detection.json").write_text(json.dumps(families.to_json()))

    def gather(self, **variables: str) -> ModelFiles:
        environ = {
            "PODKILN_ROOT": str(self.folder / "root"),
            "PODKILN_RUN": str(self.folder / "run"),
            "PODKILN_BAKED": str(self.folder / "baked"),
            "PODKILN_VOLUME": str(self.folder / "endpoint"),
            "WORKSPACE": str(self.folder / "volume"),
            "FETCH_STAGING": "never",
            "PODKILN_FETCH_TRIES": "1",
            "HF_ENDPOINT": self.hub.url,
            "CIVITAI_ENDPOINT": self.hub.url,
            **variables,
        }
        self.said.clear()
        self.hub.hits.clear()
        (self.folder / "run").mkdir(exist_ok=True)
        return Gatherer(settings.read(environ), environ, self.said.append, lambda _: None).gather()


def add_pipeline(hub: Hub, repo: str) -> None:
    for number, path in enumerate(WEIGHTS):
        hub.add(repo, path, 4096, seed=number)
    for path in ("unet", "vae", "text_encoder"):
        hub.add(repo, f"{path}/config.json", b'{"_class_name": "X"}', lfs=False)
    hub.add(repo, "tokenizer/vocab.json", b"{}", lfs=False)
    hub.add(repo, "scheduler/scheduler_config.json", b"{}", lfs=False)
    hub.add(repo, "model_index.json", json.dumps(INDEX).encode(), lfs=False)
    hub.add(repo, "unet/diffusion_pytorch_model.bin", b"x" * 64)
    hub.add(repo, "README.md", b"no card", lfs=False)
