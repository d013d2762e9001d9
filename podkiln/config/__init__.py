"""Descriptions: YAML files of variants, models, flags and folders, checked and typed."""
