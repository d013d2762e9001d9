"""The layers of the runtime: read as BuildKit exports them, and written anew in one canonical form."""
