"""From files to a pipeline on the card: what is loaded with what, in which numbers and which memory mode."""

from __future__ import annotations

from server.loading.open import open_model

__all__ = ["open_model"]
