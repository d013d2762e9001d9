"""What is locked: the lock files, what they remember of layers, and how they are filled."""
