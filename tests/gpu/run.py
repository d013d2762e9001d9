#!/usr/bin/env python3
"""The checks of a real card (bench/gpu_kit/check_run.py): make gpu calls this."""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - of a rented machine; what is imported below needs it
    sys.exit("tests/gpu/run.py: Python 3.11 or newer is needed: run it with one that has torch for CUDA.")

from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

from gpu_kit.check_run import main

sys.exit(main())
