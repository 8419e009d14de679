"""The CPU kernels execute as many instructions as they did when they were counted last, within 2 %.

A kernel that was made better on purpose is counted anew, by `python -m tests.callgrind --keep`.
"""

import pytest

from tests import callgrind

pytestmark = pytest.mark.deep  # its driver takes two minutes to compile


@pytest.fixture(scope="module")
def counts():
    if callgrind.objection():
        pytest.skip(callgrind.objection())
    compiler = callgrind.kept()[1]
    if callgrind.compiler() != compiler:
        pytest.skip(f"the counts are of {compiler}, here is {callgrind.compiler()}")
    return callgrind.count_all()


def test_as_many_instructions_as_before(counts):
    before, _ = callgrind.kept()
    assert counts.keys() == before.keys()
    changed = {
        key: f"{before[key]:,} before, {number:,} now"
        for key, number in counts.items()
        if abs(number - before[key]) > callgrind.WITHIN * before[key]
    }
    assert not changed


def test_vectors_take_fewer_instructions(counts):
    """That each capability was run: AVX2 has eight lanes."""
    for job in {job for job, _ in counts}:
        assert counts[job, "avx2"] < counts[job, "portable"], job
    assert counts["quantize float32, per row", "avx2"] < counts["quantize float32, per row", "portable"] / 4
