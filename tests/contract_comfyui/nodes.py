"""Custom nodes: looked for, loaded, and left out as the real one does it, by functions of the same names.

Source: execute_prestartup_script of main.py, init_external_custom_nodes and load_custom_node of nodes.py of
ComfyUI 0.33.0. A folder of nodes that is not there ends the boot in both.
"""
# ruff: noqa: LOG015 - the import test listens to what the real one calls

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection, Iterable

NODE_CLASS_MAPPINGS: dict[str, type] = {}


def execute_prestartup_scripts(places: Iterable[Path]) -> None:
    """Run what nodes want to have run before all else; what fails is logged."""
    for script in (each for place in places for each in place.glob("*/prestartup_script.py")):
        spec = importlib.util.spec_from_file_location(str(script.with_suffix("")), script)
        assert spec
        assert spec.loader
        try:
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
        except Exception as wrong:  # noqa: BLE001 - a node may fail as it likes
            logging.warning("Failed to execute startup-script: %s / %s", script, wrong)


async def init_external_custom_nodes(args: argparse.Namespace, places: Iterable[Path]) -> None:
    """Load all nodes that the arguments leave, and log how long each took."""
    allowed = set(args.whitelist_custom_nodes or ())
    if args.disable_all_custom_nodes and not allowed:
        return
    times = []
    for place in places:
        for name in os.listdir(place):  # noqa: PTH208 - what is missing fails in the real one's words
            path = place / name
            if (
                name == "__pycache__"
                or (path.is_file() and path.suffix != ".py")
                or name.endswith(".disabled")
            ):
                continue
            if args.disable_all_custom_nodes and name not in allowed:
                logging.info("Skipping %s due to disable_all_custom_nodes and whitelist_custom_nodes", name)
                continue
            begun = time.perf_counter()
            loaded = await load_custom_node(str(path), set(), module_parent="custom_nodes")
            times.append((loaded, time.perf_counter() - begun, path))
    if times:
        logging.info("\nImport times for custom nodes:")
        for loaded, seconds, path in times:
            logging.info("%6.1f seconds%s: %s", seconds, "" if loaded else " (IMPORT FAILED)", path)


async def load_custom_node(
    module_path: str, ignore: Collection[str] = (), module_parent: str = "custom_nodes"
) -> bool:
    """Import one; return whether it has nodes."""
    name = module_path.replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, _file(Path(module_path)))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as wrong:  # noqa: BLE001 - a node may fail as it likes
        logging.warning(traceback.format_exc())
        logging.warning("Cannot import %s module for custom nodes: %s", module_path, wrong)
        return False
    if not hasattr(module, "NODE_CLASS_MAPPINGS"):
        lack = "NODE_CLASS_MAPPINGS or comfy_entrypoint (need one)"
        logging.warning("Skip %s module for custom nodes due to the lack of %s.", module_path, lack)
        return False
    NODE_CLASS_MAPPINGS.update({k: v for k, v in module.NODE_CLASS_MAPPINGS.items() if k not in ignore})
    return True


def _file(path: Path) -> Path:
    return path if path.is_file() else path / "__init__.py"
