"""Weight layers: from their sources, hashed on the way, into a registry or a layout."""
