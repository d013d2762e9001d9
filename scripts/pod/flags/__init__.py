"""Which arguments ComfyUI gets, and which models: pure, but for reading flags.json and models.json."""
