"""`python -m quaver` prints what was built."""

import json

from quaver import build_info

print(json.dumps(build_info(), indent=2))
