"""`python -m podkiln`: what build.py becomes once there is an environment."""

import sys

from podkiln.cli import main
from podkiln.interruption import INTERRUPTIONS

if __name__ == "__main__":
    INTERRUPTIONS.install()
    sys.exit(main(sys.argv[1:]))
