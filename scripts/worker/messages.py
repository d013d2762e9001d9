"""What worker-comfyui 5.8.5 answers in words: clients compare these, so they stay as they are.

Facts of its interface (runpod-workers/worker-comfyui at d2a5572), a line each; what podkiln says beyond them
is written where it is said.
"""

from __future__ import annotations

from typing import Final

NO_INPUT: Final = "Please provide input"
INVALID_JSON: Final = "Invalid JSON format in input"
NO_WORKFLOW: Final = "Missing 'workflow' parameter"
IMAGES_MALFORMED: Final = "'images' must be a list of objects with 'name' and 'image' keys"
UPLOAD_FAILED: Final = "Failed to upload one or more input images"
NOT_REACHABLE: Final = "ComfyUI server ({address}) not reachable after multiple retries."
JOB_FAILED: Final = "Job processing failed"
INVALID_WORKFLOW: Final = "Workflow validation failed:"
INVALID_NODE: Final = "Node {node} ({kind}): {message}"  # that has Python's repr of all of them
CHECKPOINTS: Final = "Available checkpoint models: {names}"
NODE_FAILED: Final = "Workflow execution error: Node Type: {kind}, Node ID: {node}, Message: {message}"
QUEUE_FAILED: Final = "Error queuing workflow: {reason}"
HTTP_FAILED: Final = "HTTP communication error with ComfyUI: {reason}"
UNEXPECTED: Final = "An unexpected error occurred: {reason}"
NO_IMAGES: Final = "success_no_images"
