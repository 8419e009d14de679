"""The emulator from a shell: what it prints, what it refuses, and its exit code."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.emulator.command_line import main

ROOT = Path(__file__).parent.parent
README = ROOT / "tests" / "emulator" / "README.md"
TRITON = ROOT / "tests" / "emulator" / "triton"

# Doubles each number of x where the thread's number is below count; keeps its block's numbers in shared memory.
DOUBLE = """.version 8.0
.target sm_80
.address_size 64
.extern .shared .align 4 .b8 given[];
.visible .entry twice(.param .u64 x, .param .u32 count)
.maxntid 128, 1, 1
{
  .reg .b32 %r<9>;
  .reg .b64 %rd<9>;
  .reg .pred %p<2>;
  .shared .align 4 .b8 own[512];
  ld.param.u64 %rd1, [x];
  ld.param.u32 %r1, [count];
  mov.u32 %r2, %tid.x;
  setp.ge.u32 %p1, %r2, %r1;
  @%p1 bra DONE;
  mul.wide.u32 %rd2, %r2, 4;
  add.s64 %rd3, %rd1, %rd2;
  ld.global.u32 %r3, [%rd3];
  shl.b32 %r4, %r2, 2;
  mov.u32 %r5, own;
  add.s32 %r5, %r5, %r4;
  st.shared.u32 [%r5], %r3;
  mov.u32 %r6, given;
  add.s32 %r6, %r6, %r4;
  st.shared.u32 [%r6], %r3;
  ld.shared.u32 %r7, [%r5];
  add.s32 %r7, %r7, %r3;
  st.global.u32 [%rd3], %r7;
DONE:
  ret;
}
.visible .entry twice_more() { ret; }
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "double.ptx"
    path.write_text(DOUBLE)
    return path


@pytest.fixture
def shell(capsys):
    """(exit code, what was printed, what was said of errors)"""

    def run(*words):
        try:
            code = main(list(map(str, words)))
        except SystemExit as stopped:  # argparse's way
            code = stopped.code
        return code, *capsys.readouterr()

    return run


def twice(file, *words, block=32, shared=128):
    return "run", file, "twice", "--grid", 1, "--block", block, "--shared", shared, *words


def test_the_readmes_example():
    """As it stands there, in a shell of its own."""
    text = README.read_text()
    command, output = re.search(
        r"```shell\n(python -m tests.emulator run.*?)```.*?```text\n(.*?)```", text, re.S
    ).groups()
    words = shlex.split(command.replace("\\\n", " "))
    done = subprocess.run([sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == output


def test_list(shell, file):
    code, said, _ = shell("list", file)
    assert code == 0
    assert said.splitlines() == [
        "PTX 8.0 for sm_80: 2 kernels",
        "",
        "twice",
        "  parameter 0: 8 bytes at 0",
        "  parameter 1: 4 bytes at 8",
        "  .maxntid 128, 1, 1",
        "  shared memory: 512 bytes, and what the launch gives",
        "  19 instructions: add.s32 3, mov.u32 3, st.shared.u32 2, add.s64 1, bra 1, ld.global.u32 1, ld.param.u32 1,",
        "    ld.param.u64 1, ld.shared.u32 1, mul.wide.u32 1, ret 1, setp.ge.u32 1, shl.b32 1, st.global.u32 1",
        "",
        "twice_more",
        "  shared memory: 0 bytes",
        "  1 instruction: ret 1",
    ]


def test_list_needs_no_instruction_to_be_known(shell, file):
    file.write_text(DOUBLE.replace("shl.b32", "frobnicate.b32"))
    assert "frobnicate.b32 1" in shell("list", file)[1]
    code, _, errors = shell(*twice(file, "--arg", "s32[32]", "--arg", "s32=32"))
    assert code == 2
    assert "frobnicate.b32 %r4, %r2, 2;" in errors


def test_run(shell, file):
    code, said, _ = shell(*twice(file, "--arg", "s32[32]=range", "--arg", "s32=20"))
    assert code == 0
    assert said.splitlines() == [
        "twice on sm_80, grid 1, block 32, seed 0",
        "no reports",
        "19 warp instructions: add.s32 3, mov.u32 3, st.shared.u32 2, add.s64 1, bra 1, ld.global.u32 1,",
        "    ld.param.u32 1, ld.param.u64 1, ld.shared.u32 1, mul.wide.u32 1, ret 1, setp.ge.u32 1, shl.b32 1,",
        "    st.global.u32 1",
        "global memory: 80 bytes read, 80 written; 6 sectors, 6 at best",
        "shared memory: 3 wavefronts, 3 at best",
        "argument 0: s32[32] 19 changed; 0 to 38, mean 21.4375: 0, 2, 4, 6, 8, 10, 12, 14, ...",
    ]
    code, said, _ = shell(*twice(file, "--arg", "s32[32]", "--arg", "s32=20", "--device", "sm_90", "--seed", 3))
    assert said.startswith("twice on sm_90, grid 1, block 32, seed 3\n")
    assert said.endswith("argument 0: s32[32] unchanged\n")


def test_run_reports(shell, file):
    code, said, _ = shell(*twice(file, "--arg", "s32[31]=ones", "--arg", "u32=32"))
    assert code == 1
    assert "\n2 reports\n  out of bounds in twice at ?, block 0 thread 31, address" in said


def test_arrays_of_files_and_to_files(shell, file, tmp_path):
    x = np.arange(32, dtype=np.float32).reshape(4, 8)
    np.save(tmp_path / "x.npy", x.view(np.int32))
    code, _, errors = shell(*twice(file, "--arg", tmp_path / "x.npy", "--arg", "s32=32", "--save", tmp_path / "after"))
    assert (code, errors) == (0, "")
    assert np.array_equal(np.load(tmp_path / "x.npy"), x.view(np.int32)), "the file that was given was changed"
    assert np.array_equal(np.load(tmp_path / "after" / "arg0.npy"), 2 * x.view(np.int32))
    assert not (tmp_path / "after" / "arg1.npy").exists()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("s32[4]=-7", "-14 to -14"),
        ("u32[4]=0x10", "32 to 32"),
        ("s32[4]=ones", "2 to 2"),
        ("f32[2,2]=1.0000001", "2.76102e-38 to 2.76102e-38"),  # a float's bits, doubled
    ],
)
def test_fills(shell, file, kind, expected):
    code, said, _ = shell(*twice(file, "--arg", kind, "--arg", "s32=4"))
    assert code == 0
    if kind.startswith("f"):
        doubled = np.array([1.0000001], np.float32).view(np.int32) * 2
        expected = "{0:g} to {0:g}".format(doubled.astype(np.int32).view(np.float32)[0].item())
    assert f"changed; {expected}, " in said


def test_random_fills_follow_the_seed(shell, file):
    def after(seed, fill):
        return shell(*twice(file, "--arg", fill, "--arg", "s32=8", "--seed", seed))[1].splitlines()[-1]

    for fill in ("f32[8]=normal", "f32[8]=uniform", "s32[8]=uniform", "u16[16]=uniform"):
        assert after(1, fill) == after(1, fill) != after(2, fill)
    save = ("--save", file.parent)
    shell(*twice(file, "--arg", "s8[4000]=uniform", "--arg", "s32=0", *save))
    codes = np.load(file.parent / "arg0.npy")
    assert (codes.min(), codes.max()) == (-128, 127)
    shell(*twice(file, "--arg", "f16[4000]=uniform", "--arg", "s32=0", *save))
    numbers = np.load(file.parent / "arg0.npy")
    assert 0 <= numbers.min() < 0.1 < 0.9 < numbers.max() <= 1
    shell(*twice(file, "--arg", "f64[4000]=normal", "--arg", "s32=0", *save))
    numbers = np.load(file.parent / "arg0.npy")
    assert abs(numbers.mean()) < 0.1 < 0.9 < numbers.std() < 1.1


GOOD = ("--arg", "s32[32]", "--arg", "s32=32")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (GOOD[:2], "twice takes 2 arguments (8 bytes, 4 bytes), got 1"),
        (("--arg", "s32[32]", "--arg", "s64=32"), "argument 1, --arg s64=32: a number of 8 bytes; it takes 4"),
        (("--arg", "s32=1", "--arg", "s32=32"), "argument 0, --arg s32=1: a number of 4 bytes; it takes 8"),
        (("--arg", "s32[32]", "--arg", "s32[4]"), "--arg s32[4]: an array's address of 8 bytes; it takes 4"),
        (("--arg", "s9[32]"), "--arg s9[32] is not understood. It is an argument of the kernel"),
        (("--arg", "s32"), "--arg s32 is not understood"),
        (("--arg", "s8[3]=200"), "'200' is none of zeros, ones, range, normal, uniform, or a number"),
        (("--arg", "s8[3]=noise"), "'noise' is none of"),
        (("--arg", "s8[3]=normal"), "normal is for floats; uniform fills integers"),
        (("--arg", "s8[3,]"), "sizes are numbers with commas between, got '3,'"),
        (("--arg", "s8=128"), "128 is beyond -128 to 127"),
        (("--arg", "u64=-1"), "-1 is"),
        (("--arg", "s32=1.5"), "'1.5' is no number for it"),
        (("--arg", "nowhere.npy"), "nowhere.npy: No such file or directory"),
        ((*GOOD, "--grid", "1,2,3,4"), "one to three numbers with commas between, got '1,2,3,4'"),
        ((*GOOD, "--seed", "-1"), "a number that is not negative, got '-1'"),
        ((*GOOD, "--device", "sm_60"), "invalid choice: 'sm_60'"),
        ((*GOOD, "--block", "129"), "twice takes at most 128 threads"),
        ((*GOOD, "--shared", "200000"), "twice may have 166912 on sm_80"),
        ((*GOOD, "--device", "sm_75"), "PTX for sm_80 does not run on sm_75"),
    ],
)
def test_what_cannot_be_run(shell, file, words, complaint):
    code, said, errors = shell(*twice(file, *words))
    assert (code, said) == (2, "")
    assert complaint in errors


def test_files_and_kernels_that_are_not_there(shell, file, tmp_path):
    assert shell("list", tmp_path / "no.ptx") == (2, "", f"{tmp_path / 'no.ptx'}: No such file or directory\n")
    binary = tmp_path / "code.cubin"
    binary.write_bytes(b"\x7fELF\xff\xfe")
    assert "not text" in shell("list", binary)[2]
    kernel = ("--grid", 1, "--block", 1)
    assert shell("run", file, "thrice", *kernel)[2] == f"{file}: no kernel 'thrice'; there are twice, twice_more\n"
    assert "2 kernels with 'tw' in the name; there are twice, twice_more" in shell("run", file, "tw", *kernel)[2]
    assert shell("run", file, "more", *kernel)[0] == 0
    np.save(tmp_path / "complex.npy", np.zeros(3, complex))
    assert "an array of complex128" in shell("run", file, "more", *kernel, "--arg", tmp_path / "complex.npy")[2]
    (tmp_path / "broken.npy").write_text("no array")
    code, _, errors = shell("run", file, "more", *kernel, "--arg", tmp_path / "broken.npy")
    assert (code, "broken.npy" in errors) == (2, True)
    assert shell()[0] == 2
