"""Small things that every part of the pod uses: text for people, files on a volume, settings, leases."""
