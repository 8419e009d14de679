"""python -m tests.emulator: PTX from a shell (command_line.py)."""

import sys

from .command_line import main

sys.exit(main())
