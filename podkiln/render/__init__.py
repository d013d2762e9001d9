"""What is rendered: Dockerfile, start.sh, bake file, image metadata; and its linting."""
