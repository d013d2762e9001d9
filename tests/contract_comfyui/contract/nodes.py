"""Custom nodes: looked for, loaded, and left out as the real one does it.

Source: execute_prestartup_script of main.py, init_external_custom_nodes and load_custom_node of nodes.py of
ComfyUI 0.33.0. A folder of nodes that is not there ends the boot in both.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import time
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable
    from pathlib import Path

log = logging.getLogger(__name__)


def load(args: argparse.Namespace, places: Iterable[Path]) -> dict[str, type]:
    """Load all nodes that the arguments leave, and log how long each took. Returns their classes by name."""
    classes: dict[str, type] = {}
    allowed = set(args.whitelist_custom_nodes or ())
    if args.disable_all_custom_nodes and not allowed:
        return classes
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
                log.info("Skipping %s due to disable_all_custom_nodes and whitelist_custom_nodes", name)
                continue
            begun = time.perf_counter()
            times.append((_import(path, classes), time.perf_counter() - begun, path))
    if times:
        log.info("\nImport times for custom nodes:")
        for loaded, seconds, path in times:
            log.info("%6.1f seconds%s: %s", seconds, "" if loaded else " (IMPORT FAILED)", path)
    return classes


def _import(path: Path, classes: dict[str, type]) -> bool:
    name = str(path).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, path if path.is_file() else path / "__init__.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as wrong:  # noqa: BLE001 - a node may fail as it likes
        log.warning(traceback.format_exc())
        log.warning("Cannot import %s module for custom nodes: %s", path, wrong)
        return False
    if not hasattr(module, "NODE_CLASS_MAPPINGS"):
        lack = "NODE_CLASS_MAPPINGS or comfy_entrypoint (need one)"
        log.warning("Skip %s module for custom nodes due to the lack of %s.", path, lack)
        return False
    classes.update(module.NODE_CLASS_MAPPINGS)
    return True
