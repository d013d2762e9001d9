"""BuildKit and engines: running a build, loading an image, bootstrapping a base."""
