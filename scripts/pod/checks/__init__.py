"""What may be wrong with a pod, each finding one sentence."""
