"""Downloads: from a requested file to a checked file on the volume, over failures and restarts."""
