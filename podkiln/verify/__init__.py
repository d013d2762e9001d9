"""Whether a registry holds what the lock says."""
