"""int8_conv2d on CUDA, run by the emulator: every kernel, layout, dtype and edge, from sm_75 on."""

import shutil
from itertools import product

import pytest
import torch

from quaver import reference
from tests.cases import (
    CODE_DTYPES,
    FLOAT_DTYPES,
    assert_bits,
    codes,
    in_every_run,
    layouts,
    normal,
    scales,
    zero_points,
)

if shutil.which("nvcc") is None:
    pytest.skip("the emulator runs what nvcc makes of the kernels, and there is no nvcc", allow_module_level=True)

from tests.emulator import DEVICES, emulated

FORMATS = (torch.contiguous_format, torch.channels_last)
PRODUCT, DEPTHWISE = "conv2d_sm80_kernel", "conv2d_depthwise_kernel"
MEDIUM, SMALL = "MatmulKernelE4E", "MatmulKernelE5E"


def call(x, weight, *args, stride=1, padding=0, dilation=1, **options):
    """The op as the function calls it: a number stands for a pair."""
    pairs = {"stride": stride, "padding": padding, "dilation": dilation}
    return emulated.ops().int8_conv2d(
        x, weight, *args, **{name: reference.pair(value) for name, value in pairs.items()}, **options
    )


def check(x, weight, *, device="sm_80", seed=1, kernel=PRODUCT, **options):
    """The op's results are the reference's, by one kernel and no other; gives its launch."""
    args = (x, weight, scales(1, seed=4), scales(weight.shape[0], 1, 1, 1))
    with emulated.device(device, seed=seed) as runs:
        actual = call(*args, **options)
    assert_bits(actual, reference.int8_conv2d(*args, **options))
    (run,) = (run for run in runs if "conv2d" in run.kernel)
    assert kernel in run.kernel
    return run


def images(shape, memory_format, dtype=torch.int8):
    return codes(*shape, dtype=dtype).contiguous(memory_format=memory_format)


def zero_point(dtype=torch.int8):
    return {"x_zero_point": zero_points(1, dtype=dtype)}


# Kernels, in pixels of rows and columns; stride, padding, dilation.
WHERE = (
    ((1, 1), 1, 0, 1),
    ((1, 1), 2, 1, 1),
    ((3, 3), 1, 1, 1),
    ((3, 3), 2, 1, 2),
    ((5, 2), (1, 2), (2, 0), (1, 3)),
    ((2, 3), 3, (0, 4), 1),
)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("channels", [1, 3, 16, 20, 48])
def test_kernels(channels, memory_format):
    """Channels of which a stage has many taps, in which taps end within a chunk, and of whole chunks."""
    for seed, (kernel, stride, padding, dilation) in enumerate(WHERE):
        dtype, out = CODE_DTYPES[seed % 2], (5, 8, 33)[seed % 3]
        x, weight = images((2, channels, 9, 8), memory_format, dtype), codes(out, channels, *kernel, seed=seed)
        where = {"stride": stride, "padding": padding, "dilation": dilation}
        check(x, weight, seed=seed, bias=normal(out), **where, **zero_point(dtype))
        check(x, weight.contiguous(memory_format=torch.channels_last), seed=seed, **where)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize(("channels", "out", "groups"), [(32, 12, 2), (12, 6, 3), (32, 130, 2), (8, 8, 2)])
def test_groups(channels, out, groups, memory_format):
    x, weight = images((2, channels, 6, 7), memory_format), codes(out, channels // groups, 3, 2, seed=1)
    for dtype in (torch.float16, torch.float32):
        check(x, weight, groups=groups, padding=1, dtype=dtype, bias=normal(out), **zero_point())


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize(("channels", "each"), [(5, 1), (8, 1), (36, 1), (4, 2), (3, 4)])
def test_each_channel_for_itself(channels, each, memory_format):
    for seed, (kernel, stride, padding, dilation) in enumerate(WHERE):
        dtype = CODE_DTYPES[seed % 2]
        x, weight = images((2, channels, 9, 8), memory_format, dtype), codes(channels * each, 1, *kernel, seed=seed)
        where = {"stride": stride, "padding": padding, "dilation": dilation, "groups": channels}
        check(
            x, weight, seed=seed, kernel=DEPTHWISE, dtype=FLOAT_DTYPES[seed % 3], bias=normal(channels * each), **where
        )
        check(x, weight, seed=seed, kernel=DEPTHWISE, relu=True, **where, **zero_point(dtype))


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("channels", "out", "groups"), [(16, 24, 1), (16, 7, 1), (8, 8, 8), (7, 7, 7)])
def test_results(channels, out, groups, relu, memory_format):
    x, weight = images((2, channels, 5, 6), memory_format), codes(out, channels // groups, 3, 3, seed=1)
    kernel = DEPTHWISE if groups > 1 else PRODUCT
    hard = normal(out, seed=3)
    hard[:4] = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])
    for bias, given in product((None, hard), ({}, zero_point())):
        options = {"groups": groups, "padding": 1, "relu": relu, "bias": bias, "kernel": kernel, **given}
        for dtype in FLOAT_DTYPES:
            check(x, weight, dtype=dtype, **options)
        for dtype in CODE_DTYPES:
            out_zero_point = zero_points(1, dtype=dtype)
            check(x, weight, out_scale=50 * scales(1), out_zero_point=out_zero_point, dtype=dtype, **options)
        check(x, weight, out_scale=50 * scales(1), dtype=torch.int8, q_min=-5, q_max=9, **options)


@pytest.mark.parametrize(("channels", "groups"), [(16, 1), (6, 1), (8, 8), (6, 2)])
def test_layouts(channels, groups):
    x, weight = codes(2, channels, 5, 6), codes(channels, channels // groups, 3, 3, seed=1)
    kernel = DEPTHWISE if groups == channels else PRODUCT
    options = {"groups": groups, "padding": 1, "kernel": kernel, **zero_point()}
    for (_, x_view), (_, weight_view) in product(layouts(x), layouts(weight)):
        check(x_view, weight_view, **options)
    cut = torch.zeros(3, channels + 16, 9, 11, dtype=torch.int8)
    for memory_format in FORMATS:
        part = cut.contiguous(memory_format=memory_format)[1:, 16:, 1:6, 3:9].copy_(x)
        check(part, weight, **options)
    check(x[:1, :1].expand(x.shape), weight, **options)


@pytest.mark.parametrize("out_format", FORMATS, ids=str)
@pytest.mark.parametrize("x_format", FORMATS, ids=str)
def test_a_given_result_has_a_format_of_its_own(x_format, out_format):
    for channels, groups in ((16, 1), (16, 2), (16, 16)):
        args = (
            images((2, channels, 5, 6), x_format),
            codes(16, channels // groups, 3, 3, seed=1),
            scales(1),
            scales(1),
        )
        expected = reference.int8_conv2d(*args, groups=groups)
        out = torch.empty(expected.shape).contiguous(memory_format=out_format)
        with emulated.device():
            emulated.ops().int8_conv2d.out(*args, groups=groups, out=out)
        assert_bits(out, expected)


@pytest.mark.parametrize(
    ("shape", "out"),
    [((0, 3, 7, 9), 5), ((2, 3, 7, 9), 0), ((2, 0, 3, 4), 4), ((2, 3, 0, 5), 4), ((1, 4, 1, 1), 6), ((1, 16, 2, 1), 6)],
)
def test_what_is_empty_and_what_sees_little_but_padding(shape, out):
    args = (codes(*shape), codes(out, shape[1], 3, 3, seed=1), scales(1), scales(out, 1, 1, 1))
    for memory_format in FORMATS:
        x = args[0].contiguous(memory_format=memory_format)
        for padding in (2, 3):
            options = {"padding": padding, "bias": normal(out), **zero_point()}
            with emulated.device():
                actual = call(x, *args[1:], **options)
            assert_bits(actual, reference.int8_conv2d(x, *args[1:], **options))


def test_both_tiles_are_taken():
    """And their edges: pixels, channels and codes that fill the last tile, and those that leave some of it."""
    for kernel, shape, out in (
        (MEDIUM, (1, 16, 108, 128), 128),  # as many tiles as multiprocessors
        (MEDIUM, (1, 5, 115, 120), 120),
        (SMALL, (1, 16, 9, 8), 70),
        (SMALL, (1, 64, 8, 8), 64),
    ):
        for memory_format in FORMATS:
            check(images(shape, memory_format), codes(out, shape[1], 1, 3, seed=1), padding=(0, 1), kernel=kernel)


@pytest.mark.parametrize("device", in_every_run(DEVICES))
def test_devices(device):
    for seed, memory_format in product(range(2), FORMATS):
        dtype = CODE_DTYPES[seed]
        options = {"padding": 1, "device": device, "seed": seed, **zero_point(dtype)}
        x = images((2, 16, 6, 7), memory_format, dtype)
        check(x, codes(36, 16, 3, 3, seed=1), bias=normal(36), **options)
        check(x, codes(20, 8, 3, 3, seed=1), groups=2, out_scale=100 * scales(1), dtype=dtype, **options)
        check(x[:, :5], codes(9, 5, 2, 3, seed=1), stride=2, dtype=torch.bfloat16, **options)
        check(x, codes(16, 1, 3, 3, seed=1), groups=16, kernel=DEPTHWISE, **options)


def test_images_of_whole_chunks_are_read_in_whole_sectors():
    """Each chunk as often as the kernel has taps that see it; nothing else, and no bank twice at once."""
    x, weight = images((1, 64, 8, 8), torch.channels_last), codes(64, 64, 3, 3, seed=1)
    run = check(x, weight.contiguous(memory_format=torch.channels_last))
    loads = [each for each in run.counters.each if each.traffic.get(x.data_ptr(), 0)]
    assert loads
    assert all(each.opcode.startswith("cp.async") for each in loads)
    assert all(each.units == each.ideal for each in loads)


def test_a_packed_weight_is_refused():
    x, weight = codes(1, 3, 4, 5), codes(6, 3, 1, 1)
    words = "weight_packed is for matmuls on the CPU: on CUDA it must be None"
    with emulated.device(), pytest.raises(RuntimeError, match=words):
        emulated.ops().int8_conv2d(x, weight, scales(1), scales(1), weight_packed=x)
