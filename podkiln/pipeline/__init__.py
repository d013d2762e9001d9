"""The main job, stage by stage: request, preflight, build, publish, report."""
