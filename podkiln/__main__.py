"""`python -m podkiln`: what build.py becomes once there is an environment."""

import sys

from podkiln.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
