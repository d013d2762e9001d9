"""Facts of a model, collected: from Hugging Face, CivitAI, an address, or a folder here."""
