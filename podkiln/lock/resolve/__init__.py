"""How a lock is filled: hubs, package indexes, git trees, base images."""
