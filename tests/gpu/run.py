#!/usr/bin/env python3
"""The checks of a real card (bench/gpu_kit/check_run.py): make gpu calls this; any Python will do."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

from gpu_kit.check_run import main

sys.exit(main())
