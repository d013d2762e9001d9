"""The served model behind HTTP: OpenAI's routes, routes with the pipeline's own parameters, and probes."""
