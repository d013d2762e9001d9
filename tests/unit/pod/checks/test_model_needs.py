"""VRAM, RAM and disk of the enabled models against the pod's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pod.checks import model_needs

if TYPE_CHECKING:
    from pathlib import Path

    from pod.flags.rules import Rules

GB = 10**9
MODEL: dict[str, Any] = {
    "id": "portrait",
    "vram_gb": 10,
    "ram_gb": 32,
    "memory_modes": [
        {"mode": "model_full_load", "vram_gb": 60, "ram_gb": 32},
        {"mode": "sequential_cpu_offload", "vram_gb": 10, "ram_gb": 64},
    ],
    "files": [
        {
            "folder": "loras",
            "name": "a",
            "size": 3 * GB,
            "optional": False,
            "source": {"kind": "huggingface"},
        },
        {
            "folder": "vae",
            "name": "b",
            "size": None,
            "size_approx": 2 * GB,
            "optional": False,
            "source": {"kind": "civitai"},
        },
        {
            "folder": "vae",
            "name": "c",
            "size": 50 * GB,
            "optional": True,
            "source": {"kind": "https", "url": "https://x"},
        },
    ],
}
PLAIN = {**MODEL, "id": "plain", "memory_modes": []}


def record(
    mode: str | None = None, vram: int | None = 24576, ram: int | None = 65536, **changes: Any
) -> dict[str, Any]:
    models = [
        {"id": "portrait", "enabled": True, "fetch": True, "memory_mode": mode},
        {"id": "plain", "enabled": False, "fetch": False, "memory_mode": None},
    ]
    volume = {"workspace": "/workspace", "local": "/local"}
    return {"gpu": {}, "vram_mib": vram, "ram_mib": ram, "models": models, "volume": volume, **changes}


FITS: list[tuple[str | None, int | None, int | None, str, str]] = [
    ("sequential_cpu_offload", 24576, 65536, "note", "needs 10 GB of VRAM and 64 GB of RAM, and fits"),
    ("sequential_cpu_offload", 24576, 60500, "note", "and fits"),  # sold as 64 GB
    ("sequential_cpu_offload", 24576, 32768, "warning", "which is 32.0 GB too little RAM: it may run out"),
    ("model_full_load", 24576, 65536, "warning", "which is 36.0 GB too little VRAM"),
    ("model_full_load", 8192, 16384, "warning", "52.0 GB too little VRAM and 16.0 GB too little RAM"),
    ("sequential_cpu_offload", None, None, "note", "and fits"),  # nothing is known
    (None, 24576, 65536, "note", "model portrait: needs 10 GB of VRAM and 32 GB of RAM, and fits"),
]


@pytest.mark.parametrize(("mode", "vram", "ram", "level", "says"), FITS)
def test_each_enabled_model_is_measured(
    known: Rules, mode: str | None, vram: int | None, ram: int | None, level: str, says: str
) -> None:
    (finding,) = model_needs.memory(record(mode, vram, ram), [MODEL, PLAIN], known.reaches)
    assert (finding.level, says in finding.message) == (level, True), finding.message


def test_without_a_gpu_nothing_is_measured(known: Rules) -> None:
    assert model_needs.memory(record(gpu=None), [MODEL], known.reaches) == []


def test_what_is_to_be_fetched_must_fit() -> None:
    free = {"/workspace": 4 * GB, "/local": 40 * GB}
    (finding,) = model_needs.room(record(), [MODEL, PLAIN], [], free.get)
    assert finding.message == (
        "5.0 GB of models are to be fetched to /workspace, which has 4.0 GB free: use a larger volume, "
        "or enable fewer models"
    )
    assert model_needs.room(record(), [MODEL], [], {"/workspace": 6 * GB, "/local": 6 * GB}.get) == []


def test_what_is_there_needs_no_room(tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "a").touch()
    assert model_needs.room(record(), [MODEL], ["/elsewhere", str(tmp_path)], lambda _path: 2 * GB) == []


def test_a_disk_that_is_nearly_full_is_said_once() -> None:
    nothing = record(models=[])
    (finding,) = model_needs.room(nothing, [MODEL], [], {"/workspace": 100 * GB, "/local": 200_000_000}.get)
    assert finding.message == "the disk of /local has only 200 MB free: make room, or saving will fail"
    assert model_needs.room(nothing, [], [], lambda _path: None) == []


def test_this_machines_disks_can_be_asked() -> None:
    here = {**record(), "models": [], "volume": {"workspace": "/", "local": "/nowhere"}}
    assert all(finding.check == "disk" for finding in model_needs.room(here, [], []))


def test_sources_are_those_of_what_is_fetched() -> None:
    assert [source["kind"] for source in model_needs.sources(record(), [MODEL, PLAIN])] == [
        "huggingface",
        "civitai",
    ]
