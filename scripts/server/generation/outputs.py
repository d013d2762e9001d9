"""Files of what a pipeline returns: PNG, JPEG, WebP, mp4, WAV, FLAC, PLY.

Imported once a pipeline is loaded: it takes PIL, numpy and av with it.
"""

from __future__ import annotations

import io
import json
import struct
import tempfile
import wave
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import av
import numpy as np
from PIL.PngImagePlugin import PngInfo

from server.generation.request import AUDIO, IMAGE, MESH, VIDEO, Output
from server.generation.text import described

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

_MIMES: Final = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
_SUFFIXES: Final = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
_CRF: Final = "18"
"""Of x264: hardly to be told from the frames. Source: https://trac.ffmpeg.org/wiki/Encode/H.264"""
_LARGEST_SAMPLE: Final = 32767


def image(picture: Image.Image, form: str, quality: int, seed: int, parameters: Mapping[str, Any]) -> Output:
    """Return a picture as a file; in a PNG its parameters stand beside it, in a JPEG as its comment."""
    made = io.BytesIO()
    told = json.dumps({**parameters, "seed": seed}, ensure_ascii=False)
    match form:
        case "png":
            info = PngInfo()
            info.add_itxt("parameters", described({**parameters, "seed": seed}))
            info.add_itxt("podkiln", told)
            picture.save(made, "PNG", pnginfo=info, compress_level=4)
        case "jpeg":
            comment = told.encode()[:65_000]
            picture.convert("RGB").save(made, "JPEG", quality=quality, subsampling=0, comment=comment)
        case "webp":
            picture.save(made, "WEBP", quality=quality, method=4)
        case _:
            raise ValueError(f"unknown format {form}")
    return Output(IMAGE, made.getvalue(), _MIMES[form], _SUFFIXES[form], seed, picture.width, picture.height)


def jpeg(picture: Image.Image, quality: int = 70) -> bytes:
    """Return a small picture for progress."""
    made = io.BytesIO()
    picture.convert("RGB").save(made, "JPEG", quality=quality)
    return made.getvalue()


def frames_of(found: Any) -> np.ndarray[Any, Any]:
    """Return a video as bytes [frames, height, width, 3], from pictures or from numbers from 0 to 1."""
    if isinstance(found, list):
        return np.stack([np.asarray(each.convert("RGB")) for each in found])
    if hasattr(found, "detach"):  # a tensor, channels before height
        found = found.detach().float().cpu().permute(0, 2, 3, 1).numpy()
    if found.dtype == np.uint8:
        return np.asarray(found)
    return (np.nan_to_num(found) * 255).round().clip(0, 255).astype(np.uint8)


def video(
    frames: np.ndarray[Any, Any],
    rate: float,
    seed: int,
    audio: np.ndarray[Any, Any] | None = None,
    audio_rate: int = 0,
) -> Output:
    """Return an mp4 in H.264, with sound in AAC where there is some.

    Args:
        frames: Bytes [frames, height, width, 3]; an odd row or column is cut off, for 4:2:0 has none.
        rate: Frames a second.
        seed: What makes it again.
        audio: Samples [channels, samples] from -1 to 1.
        audio_rate: Samples a second.
    """
    height, width = frames.shape[1] // 2 * 2, frames.shape[2] // 2 * 2
    frames = np.ascontiguousarray(frames[:, :height, :width])
    with (
        tempfile.NamedTemporaryFile(suffix=".mp4") as file,
        # What players need first is put there at the end, for which FFmpeg opens the file again.
        av.open(file.name, "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": _CRF, "preset": "medium"}
        sound = None
        if audio is not None:
            sound = container.add_stream("aac", rate=audio_rate)
            sound.layout = "stereo" if len(audio) > 1 else "mono"
        for each in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(each, format="rgb24")))
        container.mux(stream.encode())
        if sound is not None and audio is not None:
            container.mux(sound.encode(_audio_frame(audio, audio_rate)))
            container.mux(sound.encode())
        container.close()
        content = Path(file.name).read_bytes()
    return Output(VIDEO, content, "video/mp4", ".mp4", seed, width, height)


def _audio_frame(audio: np.ndarray[Any, Any], rate: int) -> Any:
    samples = np.ascontiguousarray(audio[:2], dtype=np.float32).clip(-1, 1)
    frame = av.AudioFrame.from_ndarray(
        samples, format="fltp", layout="stereo" if len(samples) > 1 else "mono"
    )
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    return frame


def audio(samples: np.ndarray[Any, Any], rate: int, seed: int, form: str = "wav") -> Output:
    """Return sound in 16 bits: samples [channels, samples] from -1 to 1."""
    plain = (np.nan_to_num(np.atleast_2d(samples)).clip(-1, 1) * _LARGEST_SAMPLE).round().astype("<i2")
    made = io.BytesIO()
    if form == "flac":
        with av.open(made, "w", format="flac") as container:
            stream = container.add_stream("flac", rate=rate)
            layout = "stereo" if len(plain) > 1 else "mono"
            stream.format, stream.layout = "s16", layout
            woven = np.ascontiguousarray(plain[:2].T.reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(woven, format="s16", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return Output(AUDIO, made.getvalue(), "audio/flac", ".flac", seed)
    with wave.open(made, "wb") as file:
        file.setnchannels(len(plain))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(plain.T.tobytes())
    return Output(AUDIO, made.getvalue(), "audio/wav", ".wav", seed)


def mesh(found: Any, seed: int) -> Output:
    """Return a mesh of ShapE as binary PLY: vertices with colours, and triangles."""
    vertices = found.verts.detach().float().cpu().numpy()
    faces = found.faces.detach().cpu().numpy().astype("<i4")
    channels = [found.vertex_channels[name].detach().float().cpu().numpy() for name in "RGB"]
    colours = (np.stack(channels, axis=1).clip(0, 1) * 255).round().astype("u1")
    head = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n"
        + "".join(f"property float {axis}\n" for axis in "xyz")
        + "".join(f"property uchar {name}\n" for name in ("red", "green", "blue"))
        + f"element face {len(faces)}\nproperty list uchar int vertex_index\nend_header\n"
    )
    points = np.empty(len(vertices), dtype=[("at", "<f4", 3), ("colour", "u1", 3)])
    points["at"], points["colour"] = vertices, colours
    triangles = b"".join(struct.pack("<B3i", 3, *each) for each in faces)
    return Output(MESH, head.encode() + points.tobytes() + triangles, "model/ply", ".ply", seed)
