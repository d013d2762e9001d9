"""What the comparisons of podkiln's own nodes with their upstreams share: weights, ComfyUI, verdicts.

Its users run it in a Python that has torch; podkiln's own has not.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

NODES = Path(__file__).resolve().parents[1] / "scripts/nodes"


def need(*modules: str) -> None:
    """End with a sentence where this Python lacks a module."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"{sys.executable} has no {', '.join(missing)}: run this with a Python that has.")


def need_file(folder: Path, name: str) -> None:
    """End with a sentence where a folder is not the checkout that it should be."""
    if not (folder / name).is_file():
        sys.exit(f"{folder} has no {name}: name a checkout that has.")


def random_state(model: Any, chance: Any) -> dict[str, Any]:
    """Return random weights with which a model's input matters: with its initial ones it hardly does.

    Args:
        model: The module, of which names and shapes are taken.
        chance: A torch.Generator.
    """
    import torch  # noqa: PLC0415 - looked for first

    state = {}
    for name, old in model.state_dict().items():
        if not old.is_floating_point() or name.endswith(("image_mean", "image_std")):
            state[name] = old
            continue
        noise = torch.randn(old.shape, generator=chance)
        if name.endswith("running_var"):
            state[name] = 1 + 0.1 * noise.abs()
        elif old.dim() > 1:
            state[name] = noise * (old[0].numel() ** -0.5)
        elif name.endswith(("weight", "gamma")):
            state[name] = 1 + 0.1 * noise
        else:
            state[name] = 0.1 * noise
    return state


def load_images(paths: Sequence[Path]) -> Any:
    """Return pictures as ComfyUI's LoadImage does: floats in 0..1, [pictures, height, width, 3]."""
    import numpy as np  # noqa: PLC0415 - as above
    import torch  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    return torch.stack(
        [
            torch.from_numpy(np.array(Image.open(path).convert("RGB")).astype(np.float32) / 255)
            for path in paths
        ]
    )


def load_node(folder: Path, comfyui: Path) -> Any:
    """Import a node's folder as ComfyUI does, with ComfyUI's own modules, on the CPU."""
    sys.path.insert(0, str(comfyui))
    sys.argv = ["main.py", "--cpu"]
    importlib.import_module("comfy.options").enable_args_parsing()
    importlib.import_module("comfy.model_management")
    name = str(folder).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    if spec is None or spec.loader is None:
        sys.exit(f"{folder} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Row:
    """Largest differences by name, and what each may be."""

    what: str
    found: dict[str, float]
    most: float | None = None
    least: float | None = None

    @property
    def kept(self) -> bool:
        """Whether every difference is as it should be."""
        return all(
            (self.most is None or each <= self.most) and (self.least is None or each >= self.least)
            for each in self.found.values()
        )


def conclude(rows: Sequence[Row]) -> int:
    """Print each row with its verdict; return the exit code, 1 when one is not kept."""
    for row in rows:
        limit = f"at most {row.most:g}" if row.most is not None else f"at least {row.least:g}"
        figures = ", ".join(f"{name} {figure:.2g}" for name, figure in row.found.items())
        print(f"{'ok' if row.kept else 'MISSED':6}  {row.what}: {figures}; {limit}")
    return 0 if all(row.kept for row in rows) else 1
