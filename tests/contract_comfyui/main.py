"""Stand in for ComfyUI 0.33.0 where its source cannot be had: the same command line, the same answers.

A contract, not a copy: what a pod and its tests rely on (flags, exit codes, signals, folders, a few routes)
is as recorded from the real one; it generates nothing. Needs aiohttp and PyYAML, as the real one does.

CONTRACT_BOOT_SECONDS: how long a boot takes (0.1 unless set; the real one takes 9 to 40).
CONTRACT_ASSETS: `required` for the database of newer ComfyUI.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from pathlib import Path

from contract import database, devices, parser, server
from contract.folders import Folders

import nodes

log = logging.getLogger("comfyui")
VERSION = "0.33.0"
FEATURES = Path(__file__).parent / "contract" / "recorded" / "feature_flags.json"


def main() -> int:
    """Boot in the order of the real main.py: flags, folders, custom nodes, database, server."""
    data = json.loads(Path(os.environ.get("PODKILN_ROOT", "/opt/podkiln"), "flags.json").read_bytes())
    if data["comfyui"] != VERSION:
        raise SystemExit(f"contract server: speaks for ComfyUI {VERSION}, the image is for {data['comfyui']}")
    args = parser.parse(data["flags"])
    if args.list_feature_flags:
        sys.stdout.write(FEATURES.read_text())
        return 0
    stream = sys.stdout if args.log_stdout else sys.stderr
    logging.basicConfig(
        level=logging.INFO, format="\x1b[32m[%(levelname)s]\x1b[0m %(message)s", stream=stream
    )
    install = Path(__file__).resolve().parent
    folders = Folders.of(args, install)
    nodes.execute_prestartup_scripts(folders.kinds["custom_nodes"].paths)
    found = devices.find(args)
    log.info("Python version: %s", sys.version)
    log.info("ComfyUI version: %s", VERSION)
    asyncio.run(nodes.init_external_custom_nodes(args, folders.kinds["custom_nodes"].paths))
    database.open_(args, install)
    time.sleep(float(os.environ.get("CONTRACT_BOOT_SECONDS", "0.1")))
    if args.quick_test_for_ci:
        return 0
    return server.serve(args, VERSION, folders, found, nodes.NODE_CLASS_MAPPINGS)


if __name__ == "__main__":
    sys.exit(main())
