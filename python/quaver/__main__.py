"""`python -m quaver` is the command `quaver`."""

import sys

from quaver.cli import main

if __name__ == "__main__":
    sys.exit(main())
