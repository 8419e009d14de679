"""PTX that the emulator does not understand, or will not guess at, is an error with the reason and the line itself."""

import pytest

from tests.emulator import Module, PtxError, ptx

HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"
REGISTERS = (
    ".reg .pred %p<9>; .reg .b16 %rs<9>; .reg .b32 %r<33>; .reg .f32 %f<9>; .reg .b64 %rd<33>; .reg .f64 %fd<9>;"
)


def text_of(body):
    return f"{HEAD}\n.visible .entry k(.param .u64 x)\n{{\n{REGISTERS}\n{body}\nret;\n}}\n"


def error_of(body):
    with pytest.raises(PtxError) as error:
        Module.from_ptx(text_of(body), "sm_80").kernel("k")
    return str(error.value)


REFUSED = {
    "approximate": [
        "ex2.approx.f32 %f1, %f2;",
        "ex2.approx.ftz.f32 %f1, %f2;",
        "lg2.approx.f32 %f1, %f2;",
        "rcp.approx.f32 %f1, %f2;",
        "rcp.approx.ftz.f64 %fd1, %fd2;",
        "rsqrt.approx.f32 %f1, %f2;",
        "sqrt.approx.f32 %f1, %f2;",
        "sin.approx.f32 %f1, %f2;",
        "tanh.approx.f32 %f1, %f2;",
        "div.approx.f32 %f1, %f2, %f3;",
        "div.full.f32 %f1, %f2, %f3;",
        "div.full.ftz.f32 %f1, %f2, %f3;",
    ],
    "flushes denormals": [
        "add.ftz.f32 %f1, %f2, %f3;",
        "fma.rn.ftz.f32 %f1, %f2, %f3, %f4;",
        "mul.rn.ftz.sat.f32 %f1, %f2, %f3;",
        "setp.lt.ftz.f32 %p1, %f2, %f3;",
        "cvt.rni.ftz.s32.f32 %r1, %f2;",
        "min.ftz.f32 %f1, %f2, %f3;",
    ],
    "rounding": [
        "add.rz.f32 %f1, %f2, %f3;",
        "mul.rp.f64 %fd1, %fd2, %fd3;",
        "fma.rm.f32 %f1, %f2, %f3, %f4;",
        "div.rz.f32 %f1, %f2, %f3;",
        "sqrt.rp.f64 %fd1, %fd2;",
        "cvt.f32.s32 %f1, %r2;",
        "cvt.s32.f32 %r1, %f2;",
        "cvt.f32.f64 %f1, %fd2;",
    ],
    "integers are not rounded": ["cvt.rn.s32.u8 %r1, %r2;"],
    "is not rounded": ["cvt.rn.f64.f32 %fd1, %f2;"],
    "carry": [
        "add.cc.u32 %r1, %r2, %r3;",
        "addc.u32 %r1, %r2, %r3;",
        "subc.cc.u32 %r1, %r2, %r3;",
        "mad.lo.cc.u32 %r1, %r2, %r3, %r4;",
        "madc.hi.u32 %r1, %r2, %r3, %r4;",
    ],
    "unknown instruction": [
        "frobnicate.u32 %r1, %r2;",
        "add.s32.sat %r1, %r2, %r3;",
        "add.sat.u32 %r1, %r2, %r3;",
        "add.s8 %r1, %r2, %r3;",
        "mul.s32 %r1, %r2, %r3;",
        "mul.wide.u64 %rd1, %rd2, %rd3;",
        "not.u32 %r1, %r2;",
        "abs.u32 %r1, %r2;",
        "shl.s32 %r1, %r2, %r3;",
        "fma.f32 %f1, %f2, %f3, %f4;",
        "div.f32 %f1, %f2, %f3;",
        "ld_const.u32 %r1, %r2;",
        "ld.global.v8.u8 %r1, [%rd1];",
        "st.param.u32 [x], %r1;",
        "shfl.idx.b32 %r1, %r2, 0, 31;",
        "shfl.sync.across.b32 %r1, %r2, 0, 31, -1;",
        "vote.ballot.b32 %r1, %p1;",
        "atom.global.mul.u32 %r1, [%rd1], 2;",
        "atom.global.add.b16 %rs1, [%rd1], %rs2;",
        "bar.red.popc.u32 %r1, 0, %p1;",
        "call.uni foo;",
    ],
    "unknown comparison": [
        "setp.lo.s32 %p1, %r1, %r2;",
        "setp.lt.b32 %p1, %r1, %r2;",
        "setp.ltu.s32 %p1, %r1, %r2;",
        "setp.hi.f32 %p1, %f1, %f2;",
        "set.num.u32.u32 %r1, %r2, %r3;",
    ],
    "unknown atomic": [
        "atom.global.and.u32 %r1, [%rd1], 2;",
        "atom.global.inc.s32 %r1, [%rd1], 2;",
        "red.global.exch.b32 [%rd1], 2;",
        "red.global.cas.b32 [%rd1], 2, 3;",
        "atom.global.add.s64 %rd1, [%rd2], 1;",
    ],
    "unknown reduction": ["redux.sync.add.b32 %r1, %r2, -1;", "redux.sync.and.s32 %r1, %r2, -1;"],
    "ballot": ["vote.sync.ballot.pred %p1, %p2, -1;", "vote.sync.any.b32 %r1, %p2, -1;"],
    "constant memory": ["ld.const.u32 %r1, [%rd1];"],
    "operands expected": ["add.s32 %r1, %r2;", "setp.lt.and.s32 %p1, %r1, %r2;", "neg.f32 %f1, %f2, %f3;"],
    "destinations expected": ["ld.global.v2.u32 {%r1, %r2, %r3}, [%rd1];"],
    "sources expected": ["st.global.v4.u32 [%rd1], {%r1, %r2};"],
    "an address was expected": ["ld.global.u32 %r1, %rd1;"],
    "is read as": ["add.s64 %rd1, %r1, %rd2;", "add.f64 %fd1, %f1, %fd2;", "shl.b32 %r1, %r2, %rs1;"],
    "does not fit": ["cvt.s64.s32 %r1, %r2;", "mov.b32 %rs1, %r1;", "ld.global.u32 %rs1, [%rd1];"],
    "a float literal": [
        "add.f64 %fd1, %fd2, 0f3F800000;",
        "add.f32 %f1, %f2, 0d3FF0000000000000;",
        "add.s32 %r1, %r2, 0f3F800000;",
    ],
    "an integer literal": ["add.f32 %f1, %f2, 1;"],
    "predicate": ["add.s32 %r1, %p1, %r2;", "setp.lt.s32 %r1, %r2, %r3;", "selp.b32 %r1, %r2, %r3, %r4;"],
    "unknown register": ["mov.u32 %r1, %clock;", "mov.u32 %r1, %undeclared;"],
    "unknown symbol": ["mov.u32 %r1, nowhere;", "ld.shared.u32 %r1, [nowhere+4];"],
    "unknown label": ["bra NOWHERE;"],
    "packed": ["mov.b32 {%rs1, %rs2, %rs3}, %r1;", "mov.b16 {%r1, %r2, %r3, %r4}, %rs1;"],
    "third operand": ["cvt.pack.sat.u8.s32 %r1, %r2, %r3;", "cvt.pack.sat.s16.s32.b32 %r1, %r2, %r3, %r4;"],
    "bf16": ["cvt.rni.s8.bf16 %rs1, %rs2;"],
    "unexpected": ["add.s32 %r1 %r2, %r3;"],
    "mask of lanes": ["bar.warp.sync %rd1;"],
    "barrier": ["bar.sync 16;", "bar.sync 0, 33;", "bar.sync %r1;"],
    "an arrival": ["bar.arrive 1;"],
    "unknown directive": [".branchtargets A, B;", ".callprototype _ ();"],
}  # fmt: skip


@pytest.mark.parametrize(("words", "line"), [(words, line) for words, lines in REFUSED.items() for line in lines])
def test_the_line_is_quoted_with_the_reason(words, line):
    message = error_of(f"mov.u32 %r9, 1;\n\t{line}\nmov.u32 %r9, 2;")
    assert words in message
    assert line in message
    assert "line 9" in message


@pytest.mark.parametrize("line", [".alias f, g;", ".func (.reg .u32 r) f () { ret; }", ".texref t;"])
def test_unknown_directives_outside_kernels(line):
    with pytest.raises(PtxError, match="unknown directive") as error:
        Module.from_ptx(f"{HEAD}{line}\n")
    assert line in str(error.value)


def test_locations_are_those_of_the_nearest_loc():
    body = """
    .loc 1 10 3
    mov.u32 %r1, 1; mov.u32 %r2, 2;
    .loc 2 77 1, function_name $L__info_string0, inlined_at 1 12 5
    mov.u32 %r3, 3;
    """
    module = ptx.parse(text_of(body) + '.file 1 "a.cu"\n.file 2 "b.cuh", 1700000000, 512\n')
    sources = [instruction.source for instruction in module.kernels["k"].instructions]
    assert sources == [("a.cu", 10), ("a.cu", 10), ("b.cuh", 77), ("b.cuh", 77)]


def test_scopes_end():
    assert "unknown" in error_of("{ .reg .b32 inner; mov.u32 inner, 1; } mov.u32 %r1, inner;")
