"""The OCI formats: descriptors, manifests, references, image layouts, layer tars. No network."""
