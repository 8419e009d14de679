"""Every case of `make evidence` keeps its bounds, and the kept table is what the kernels give now.

Counted here: every case on sm_80, a few on the other architectures. The table's own rows, of every case on every
architecture, are held to the bounds as they stand.
"""

import re
import shutil

import pytest

import quaver

if shutil.which("nvcc") is None:
    pytest.skip("the emulator counts what nvcc makes of the kernels, and there is no nvcc", allow_module_level=True)
if not quaver.build_info()["cuda"]:
    pytest.skip(f"no CUDA kernels: {quaver.build_info()['cuda_unavailable_reason']}", allow_module_level=True)

from benchmarks import beside_triton
from benchmarks.evidence import bounds, cases, compiled, machine_code, page, table
from benchmarks.evidence.counted import WHOLE_OP
from tests.emulator import DEVICES

FULLY = "sm_80"
# On the other architectures.
SOME = (
    "choose_qparams float32 64x1024 per channel 1",
    "quantize bfloat16 64x1024 per channel 0",
    "dynamic_quantize float32 8x4096 per token, asymmetric, row sums",
    "dequantize bfloat16 64x1024 per tensor, misaligned",
)
KEPT_TABLE_IS_OLD = "`make evidence` makes the table anew; look at what changed before you keep it"


def key_of(row):
    return tuple(row[name] for name in table.KEY)


def keyed(rows):
    """By case, architecture and kernel; a kernel that a case launches in two shapes has two rows."""
    found = {}
    for row in rows:
        found.setdefault(key_of(row), []).append(row)
    return found


def differences(expected, actual, names):
    return [
        f"{' | '.join(key)}: {name} is {new[name]}, the table has {old[name]}"
        for key, rows in keyed(actual).items()
        for new, old in zip(rows, expected.get(key, [dict.fromkeys(table.COLUMNS)] * len(rows)), strict=True)
        for name in names
        if new[name] != old[name]
    ]


def in_words(problems, advice=""):
    return "\n".join([*problems[:40], *([f"... and {len(problems) - 40} more"] if len(problems) > 40 else []), advice])


@pytest.fixture(scope="module")
def kept():
    return table.read()


def count():
    rows = []
    for architecture in DEVICES:
        chosen = [case for case in cases.all_cases() if architecture == FULLY or case.name in SOME]
        rows += table.with_resources(table.counted_rows(chosen, architecture))
    return rows


def changes(kept, counted):
    """How what the kernels give now differs from the kept table."""
    expected = keyed(kept)
    chosen = {(row["case"], row["architecture"]) for row in counted}
    assert {key for key in expected if key[:2] in chosen} == keyed(counted).keys(), KEPT_TABLE_IS_OLD
    rows = table.with_loops([dict(row) for row in counted if row["architecture"] == FULLY])
    return [
        *differences(expected, counted, (*table.COUNTS, "opcodes", *table.RESOURCES)),
        *differences(expected, rows, table.LOOP),
    ]


def test_what_is_counted_now(kept):
    """One test, since it takes a minute to count: another process would count again."""
    counted = count()
    problems = bounds.broken(counted)
    assert not problems, in_words(problems)
    looser = [str(each) for each in bounds.unneeded(counted)]
    assert not looser, in_words(["no case needs:", *looser])
    here = {compiled.nvcc_release(), quaver.build_info()["nvcc"]}
    if here != {page.recorded_nvcc()}:
        pytest.skip(f"the table is of nvcc {page.recorded_nvcc()}, here is {' and '.join(here)}: only bounds hold")
    problems = changes(kept, counted)
    assert not problems, in_words(problems, KEPT_TABLE_IS_OLD)


def test_the_kept_table_keeps_the_bounds(kept):
    problems = bounds.broken(kept)
    assert not problems, in_words(problems)


def test_the_kept_table_has_every_case_on_every_architecture(kept):
    wanted = {(case.name, architecture) for case in cases.all_cases() for architecture in DEVICES}
    assert {(row["case"], row["architecture"]) for row in kept} == wanted, KEPT_TABLE_IS_OLD
    assert len({case.name for case in cases.all_cases()}) == len(cases.all_cases())


def test_the_page_is_of_the_kept_table(kept):
    assert page.PAGE.read_text() == page.text_of(kept, page.recorded_nvcc()), KEPT_TABLE_IS_OLD


def test_every_kernel_of_the_library_is_counted(kept):
    """With some of its template arguments: not for every type of codes, nor in the mode "affine"."""

    def kernels(names):
        return {re.sub(r"<.*>", "", name) for name in names if name != WHOLE_OP}

    assert kernels(row["kernel"] for row in kept) == kernels(kernel for kernel, _ in compiled.resources())


def test_bounds_see_what_breaks_them(kept):
    """Each quantity, made a little too large in a row that keeps its bound."""
    row = next(row for row in kept if row["op"] == "quantize" and "per tensor" in row["case"])
    assert not bounds.broken([row])
    limits = bounds.standard_limits(row)
    assert limits.keys() == {*bounds.SPILLS, *bounds.ACCESSES, bounds.BYTES}
    for quantity, most in limits.items():
        (problem,) = bounds.broken([{**row, quantity: most + 0.001}])
        assert row["case"] in problem
        assert quantity in problem
        assert row["kernel"] in problem


# The reading of machine code, on code that is written here.


def code(*lines):
    return "\n".join(f"        /*{16 * i:04x}*/                   {line} ;" for i, line in enumerate(lines))


def test_the_main_loop_is_the_innermost_that_loads():
    loop = machine_code.main_loop(
        code(
            "MOV R1, R2",  # 0x00
            "LDG.E R3, [R4.64]",  # 0x10: the outer loop begins
            "LDG.E.128 R4, [R4.64]",  # 0x20: the inner one begins
            "FADD R4, R4, R5",  # 0x30
            "@P0 BRA 0x20",  # 0x40
            "STG.E [R4.64], R4",  # 0x50
            "@P1 BRA 0x10",  # 0x60
            "EXIT",  # 0x70
            "BRA 0x80",  # 0x80: what fills the end
        )
    )
    assert loop.loops
    assert +loop.kinds == {"global load": 1, "float": 1, "control": 1}


def test_a_jump_back_from_a_rare_path_is_no_loop():
    loop = machine_code.main_loop(
        code(
            "LDG.E R3, [R4.64]",  # 0x00
            "BRA.U !UP0, 0x40",  # 0x10
            "STG.E [R4.64], R3",  # 0x20: both paths come here
            "EXIT",  # 0x30
            "IADD3 R3, R3, 1, RZ",  # 0x40
            "BRA 0x20",  # 0x50
        )
    )
    assert not loop.loops
    assert loop.kinds["global load"] == 1


def test_products_choose_the_main_loop_where_there_are_any():
    loop = machine_code.main_loop(
        code(
            "LDG.E R3, [R4.64]",  # 0x00: a loop that loads
            "@P0 BRA 0x0",  # 0x10
            "IMMA.16832.S8.S8 R4, R4.ROW, R8.COL, R12",  # 0x20: a loop that multiplies
            "@!P0 BRA 0x20",  # 0x30
            "EXIT",  # 0x40
        )
    )
    assert +loop.kinds == {"mma": 1, "control": 1}


def test_unknown_machine_instructions_are_errors():
    with pytest.raises(ValueError, match="no known kind: FROBNICATE R1"):
        machine_code.main_loop(code("FROBNICATE R1", "EXIT"))
    with pytest.raises(ValueError, match="not followed: BRX R2"):
        machine_code.main_loop(code("BRX R2 -0x10", "EXIT"))
    with pytest.raises(ValueError, match="without machine code"):
        machine_code.main_loop("")


def test_occupancy():
    """Known by hand: what registers, threads and shared memory leave of a multiprocessor."""
    light = compiled.Resources(registers=32, stack=0, static_shared=0, local=0)
    heavy = compiled.Resources(registers=128, stack=0, static_shared=0, local=0)
    shared = compiled.Resources(registers=32, stack=0, static_shared=40 * 1024, local=0)
    assert compiled.blocks_that_fit("sm_80", light, 256, 0) == 8  # 2,048 / 256 threads
    assert compiled.blocks_that_fit("sm_75", light, 256, 0) == 4  # 1,024 / 256
    assert compiled.blocks_that_fit("sm_80", heavy, 256, 0) == 2  # 65,536 / (128 * 256) registers
    assert compiled.blocks_that_fit("sm_80", shared, 256, 0) == 4  # 164 / 41 KiB, one of them the system's
    assert compiled.blocks_that_fit("sm_80", light, 128, 160 * 1024) == 1


@pytest.mark.deep
def test_the_counts_beside_tritons_are_kept():
    assert (list(beside_triton.HEAD), beside_triton.counted()) == beside_triton.read(), (
        "`python -m benchmarks.beside_triton` counts anew; look at what changed before you keep it"
    )
