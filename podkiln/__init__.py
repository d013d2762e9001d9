"""podkiln: reproducible GPU-pod images, from a description to a pushed and proven manifest.

Data flows one way, and a module imports only what stands before it (tests/unit/test_architecture.py).
"""

__version__ = "0.1.0"
