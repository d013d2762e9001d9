"""The files of the model that is served: which they are, where they lie, and how they come there."""
