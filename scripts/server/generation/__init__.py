"""One generation: what is asked of the model that is served, and what comes of it."""
