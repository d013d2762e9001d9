"""The volume: what lies on it, and what custom nodes there need."""
