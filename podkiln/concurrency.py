"""How much is moved at once, where nobody says: what engines and registries use themselves, too."""

from __future__ import annotations

from typing import Final

JOBS: Final = 3
