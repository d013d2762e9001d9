"""Source trees: a commit's archive from its repository's host, compared with git's tree id, and patched."""
