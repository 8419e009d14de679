"""What runs with each instruction set: vectors and their tails, and random calls, valid or not. Says where it ran."""

import quaver
from quaver import _C
from tests.fuzz import fuzz
from tests.test_cpu_capability import results


def main():
    for _ in results():
        pass
    made = fuzz(300)
    assert not made.complaints, "\n".join(made.complaints)
    print(_C.__file__, quaver.build_info()["cpu_capability"])


if __name__ == "__main__":
    main()
