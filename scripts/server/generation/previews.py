"""Small pictures of what is there so far, without the VAE's decoder.

A VAE's latents are near to a linear picture of the colours at their places. Its matrix is made once, from the
model itself: a picture of coloured patches is encoded, and least squares lead from latents to colours.
Where a model's latents cannot be read that way, there are no previews.
Imported once a pipeline is loaded: it takes torch with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from PIL import Image

from server.generation.outputs import jpeg

if TYPE_CHECKING:
    from collections.abc import Callable

_PATCHES: Final = 12
"""Patches a side; each as wide as four latents, so that their inner places see one colour."""
_WIDEST: Final = 256  # pixels of a preview


class Previewer:
    """Makes previews for one pipeline; `say` is told once why there are none."""

    def __init__(self, pipeline: Any, say: Callable[[str], None] = lambda _: None) -> None:
        self._pipeline, self._say = pipeline, say
        self._matrix: torch.Tensor | None = None
        self._failed = False

    def prepare(self) -> None:
        """Make the matrix where that has not been done."""
        if self._matrix is not None or self._failed:
            return
        try:
            with torch.no_grad():
                self._matrix = _fitted(self._pipeline.vae)
        except Exception as error:  # noqa: BLE001 - whatever a VAE lacks, pictures come without previews
            self._failed = True
            self._say(f"there are no previews: {type(error).__name__}")

    def jpeg(self, latents: Any, height: int, width: int) -> bytes | None:
        """Return a preview of the first picture or middle frame of latents; None where there is none."""
        if self._matrix is None:
            return None
        try:
            plain = self._plain(latents, height, width)
            flat = plain.reshape(plain.shape[0], -1).T
            ones = torch.ones(len(flat), 1)
            colours = torch.cat([flat, ones], dim=1) @ self._matrix
            pixels = ((colours.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
            picture = Image.fromarray(pixels.reshape(*plain.shape[1:], 3).numpy(), "RGB")
        except Exception as error:  # noqa: BLE001 - a preview is never worth a generation
            self._failed, self._matrix = True, None
            self._say(f"there are no previews: {type(error).__name__}")
            return None
        times = max(1, min(_WIDEST // max(picture.size), 8))
        return jpeg(
            picture.resize((picture.width * times, picture.height * times), Image.Resampling.BILINEAR)
        )

    def _plain(self, latents: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Return the first latents as the VAE has them, [channels, height, width], on the CPU."""
        first = latents[:1].detach()
        if first.ndim == 3:  # noqa: PLR2004 - packed, as Flux and Qwen-Image have them
            scale = self._pipeline.vae_scale_factor
            first = self._pipeline._unpack_latents(first, height, width, scale)  # noqa: SLF001 - its own inverse
        first = first.float().cpu()
        if first.ndim == 5:  # noqa: PLR2004 - a video
            first = first[:, :, first.shape[2] // 2]
        return _denormalised(first[0], self._pipeline.vae.config)


def _denormalised(latents: torch.Tensor, config: Any) -> torch.Tensor:
    means, deviations = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if isinstance(means, list | tuple) and isinstance(deviations, list | tuple):
        shape = (-1, 1, 1)
        return latents * torch.tensor(deviations).view(shape) + torch.tensor(means).view(shape)
    scale = getattr(config, "scaling_factor", None) or 1.0
    return latents / scale + (getattr(config, "shift_factor", None) or 0.0)


def _fitted(vae: Any) -> torch.Tensor:
    """Return the matrix [channels + 1, 3] from latents to colours from -1 to 1."""
    parameter = next(vae.parameters())
    device = (getattr(vae, "_hf_hook", None) and vae._hf_hook.execution_device) or parameter.device  # noqa: SLF001
    factor = _factor(vae)
    source = torch.Generator("cpu").manual_seed(0)
    patches = torch.rand(1, 3, _PATCHES, _PATCHES, generator=source) * 2 - 1
    picture = torch.nn.functional.interpolate(patches, scale_factor=4 * factor)
    given = picture.to(device, vae.dtype)
    video = "3d" in type(vae.encoder).__name__.lower() or hasattr(vae, "temporal_compression_ratio")
    found = vae.encode(given[:, :, None] if video else given).latent_dist.mode().float().cpu()
    if found.ndim == 5:  # noqa: PLR2004
        found = found[:, :, 0]
    side = found.shape[-1]
    colours = torch.nn.functional.interpolate(patches, size=(side, side))
    flat = found[0].reshape(found.shape[1], -1).T
    return torch.linalg.lstsq(
        torch.cat([flat, torch.ones(len(flat), 1)], dim=1), colours[0].reshape(3, -1).T
    ).solution


def _factor(vae: Any) -> int:
    """Return how many pixels a latent is wide."""
    told = getattr(vae, "spatial_compression_ratio", None)
    if isinstance(told, int):
        return told
    channels = getattr(vae.config, "block_out_channels", None)
    if channels:
        return int(2 ** (len(channels) - 1))
    return int(2 ** len(vae.temperal_downsample))
