"""Media that a request brings: their content tells what they are, and their size before they are decoded.

Imported once a pipeline is loaded: it takes PIL, numpy, av and torch with it.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any, Final

import av
import numpy as np
import torch
from PIL import Image, ImageOps

from server.generation.failure import first_line
from server.generation.request import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PICTURES: Final = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"RIFF": "WEBP"}
"""How the kinds of pictures that are taken begin: PNG, JPEG, WebP (RFC 9649)."""
MEGAPIXELS: Final = 64
"""Of one picture: an 8k photograph has 33."""
FRAMES: Final = 1000
"""Of a video: 40 s at 25 frames a second."""
VIDEO_MEGAPIXELS: Final = 1200
"""Of all frames of a video together, as they are in memory: 3.6 GB."""
AUDIO_SECONDS: Final = 600
_CONTAINERS: Final = "mov,matroska,avi,gif,ogg,flac,wav,mp3,aac"
"""Demuxers of FFmpeg that are tried: none of those that lead to other files or addresses."""
_OPAQUE: Final = 255
_MASKS: Final = frozenset({"mask_image", "mask", "padding_mask"})


def decoded(name: str, contents: Sequence[bytes], rate: int = 0) -> Any:
    """Return what a pipeline takes for a parameter: a picture or a list of them, frames, or samples.

    Args:
        name: The parameter's name.
        contents: One file, or several pictures.
        rate: Samples a second, for sound; 0 for the file's own.

    Raises:
        RequestError: What it is, or its size, is not accepted.
    """
    words = set(name.split("_"))
    if words & {"audio", "waveform", "waveforms"}:
        return sound(name, contents[0], rate)
    if words & {"video", "videos", "frames"}:
        return frames(name, contents[0])
    found = [picture(name, each) for each in contents]
    return found[0] if len(found) == 1 else found


def picture(name: str, content: bytes) -> Image.Image:
    """Return a picture in RGB, or grey for a mask, turned as its camera was held. Raises RequestError."""
    kind = next((kind for mark, kind in PICTURES.items() if content.startswith(mark)), "")
    if not kind or (kind == "WEBP" and content[8:12] != b"WEBP"):
        raise RequestError(f"{name} is no picture: PNG, JPEG and WebP are taken.", name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=(kind,)) as image:
                _check_size(name, image.width, image.height)
                image.load()
                turned = ImageOps.exif_transpose(image)
                return _mask(turned) if name in _MASKS else turned.convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise RequestError(
            f"{name} has more pixels than the {MEGAPIXELS} megapixels that are the most: make it smaller.",
            name,
        ) from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise RequestError(f"{name} is a damaged {kind} file ({first_line(error)}).", name) from None


def _mask(image: Image.Image) -> Image.Image:
    """Return a mask in grey, white where the picture is to change, as diffusers has it.

    In OpenAI's masks that is where they are transparent
    (platform.openai.com/docs/api-reference/images/createEdit).
    """
    if image.has_transparency_data:
        opaque = image.convert("RGBA").getchannel("A")
        if opaque.getextrema() != (_OPAQUE, _OPAQUE):
            return ImageOps.invert(opaque)
    return image.convert("L")


def _check_size(name: str, width: int, height: int) -> None:
    if width * height > MEGAPIXELS * 1_000_000:
        raise RequestError(
            f"{name} has {width}x{height} pixels, and {MEGAPIXELS} megapixels are the most: make it smaller.",
            name,
        )


def frames(name: str, content: bytes) -> list[Image.Image]:
    """Return the frames of a video. Raises RequestError."""
    found: list[Image.Image] = []
    pixels = 0
    for frame in _decoded(name, content, "video"):
        _check_size(name, frame.width, frame.height)
        pixels += frame.width * frame.height
        if len(found) == FRAMES or pixels > VIDEO_MEGAPIXELS * 1_000_000:
            raise RequestError(
                f"{name} has more than {FRAMES} frames or {VIDEO_MEGAPIXELS} megapixels in all: make it "
                "shorter or smaller.",
                name,
            )
        found.append(frame.to_image())
    if not found:
        raise RequestError(f"{name} has no frames.", name)
    return found


def sound(name: str, content: bytes, rate: int) -> torch.Tensor:
    """Return samples from -1 to 1, channels first, at a rate. Raises RequestError."""
    resampler: Any = None
    blocks: list[Any] = []
    count = 0
    for frame in _decoded(name, content, "audio"):
        if resampler is None:
            rate = rate or frame.sample_rate
            resampler = av.AudioResampler(format="fltp", layout="stereo", rate=rate)
        for each in resampler.resample(frame):
            blocks.append(each.to_ndarray())
            count += blocks[-1].shape[1]
        if count > AUDIO_SECONDS * rate:
            raise RequestError(f"{name} is longer than {AUDIO_SECONDS} s.", name)
    if not blocks:
        raise RequestError(f"{name} has no sound.", name)
    return torch.from_numpy(np.concatenate(blocks, axis=1))


def _decoded(name: str, content: bytes, kind: str) -> Iterator[Any]:
    """Yield the frames of the first stream of a kind; of a content that is data, never of what it names."""
    try:
        with av.open(
            io.BytesIO(content), options={"format_whitelist": _CONTAINERS, "protocol_whitelist": ""}
        ) as opened:
            streams = getattr(opened.streams, kind)
            if not streams:
                raise RequestError(f"{name} has no {kind}.", name)
            stream = streams[0]
            if kind == "video":
                _check_size(name, stream.codec_context.width, stream.codec_context.height)
            yield from opened.decode(stream)
    except (av.FFmpegError, ValueError, OSError) as error:
        raise RequestError(f"{name} cannot be read as {kind} ({first_line(error)}).", name) from None
