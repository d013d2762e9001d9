"""What a person writes to name a model, and the models that the image offers."""
