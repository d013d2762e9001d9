"""What a pipeline takes: read off its signature and docstring, said as JSON Schema, and checked."""
