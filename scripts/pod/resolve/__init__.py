"""From a reference to a file with a name, a folder, a size and a hash."""
