"""Runs upstream's inference_infcam.py, in InfCam's own environment, on frames from the node.

The script is run as it is. It has no arguments for what a pod needs (no memory modes, no device, videos as
files alone), and no licence under which a changed copy, or a patch with its lines, could be handed on: so
what has to be otherwise is put, from here, in the place of the things that it imports.
"""
