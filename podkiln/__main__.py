"""`python -m podkiln`: what build.py becomes once there is an environment."""

import signal
import sys

from podkiln.cli import main, terminate

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, terminate)
    sys.exit(main(sys.argv[1:]))
