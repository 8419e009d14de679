"""quantize's mode "stochastic": its random numbers, which element takes which, and what they do to errors.

ARITHMETIC.md (2). That every backend draws the same is tested where the backends are, with the other modes.
"""

import ctypes
import math
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import quaver
from quaver import reference
from tests import oracle
from tests.cases import CODE_DTYPES, DEVICES, FLOAT_DTYPES, assert_bits, layouts, normal

op = torch.ops.quaver.quantize
on_each_device = pytest.mark.parametrize("device", DEVICES)

CSRC = Path(__file__).parent.parent / "csrc"

# Counter, key and result: the known answers that come with Philox's authors' library, Random123, for philox4x32 10.
KNOWN_ANSWERS = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)


# The numbers.


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_known_answers_of_the_oracle_and_the_reference(counter, key, words):
    assert oracle.philox(counter, key) == words
    assert tuple(int(word) for word in reference.philox(tuple(map(torch.tensor, counter)), key)) == words


@pytest.fixture(scope="module")
def philox_h(tmp_path_factory):
    """csrc/philox.h, which all kernels include, as a library of its own."""
    if shutil.which("g++") is None:
        pytest.skip("philox.h is compiled here, and there is no g++")
    folder = tmp_path_factory.mktemp("philox")
    source = folder / "philox.cpp"
    source.write_text(
        '#include "philox.h"\n'
        'extern "C" void words(const uint32_t* in, uint32_t* out) {\n'
        "  const auto made = quaver::philox({{in[0], in[1], in[2], in[3]}}, {in[4], in[5]});\n"
        "  for (int i = 0; i < 4; ++i) out[i] = made.word[i];\n"
        "}\n"
        'extern "C" void words_of_four(uint64_t number, int64_t seed, uint32_t* out) {\n'
        "  const auto made = quaver::words_of_four(number, seed);\n"
        "  for (int i = 0; i < 4; ++i) out[i] = made.word[i];\n"
        "}\n"
        'extern "C" float uniform_of(uint32_t word) { return quaver::uniform_of(word); }\n'
    )
    library = folder / "philox.so"
    subprocess.run(["g++", "-std=c++20", "-shared", "-fPIC", f"-I{CSRC}", source, "-o", library], check=True)
    return ctypes.CDLL(str(library))


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_known_answers_of_the_kernels_header(philox_h, counter, key, words):
    out = (ctypes.c_uint32 * 4)()
    philox_h.words((ctypes.c_uint32 * 6)(*counter, *key), out)
    assert tuple(out) == words


@pytest.mark.parametrize("index", [0, 3, 4, 2**32, 2**34 - 1, 2**34, 2**34 + 5, 2**62 + 2])
@pytest.mark.parametrize("seed", [0, 1, -1, 2**32, -(2**63), 2**63 - 1])
def test_counter_and_key(philox_h, index, seed):
    """Beyond what a tensor of today holds: the counter's and the key's upper halves."""
    out = (ctypes.c_uint32 * 4)()
    philox_h.words_of_four(ctypes.c_uint64(index // 4), ctypes.c_int64(seed), out)
    philox_h.uniform_of.restype = ctypes.c_float
    assert philox_h.uniform_of(ctypes.c_uint32(out[index % 4])) == float(oracle.uniform(index, seed))


@pytest.mark.parametrize("seed", [0, 1, -1, 2**40 + 7, -(2**63), 2**63 - 1])
def test_numbers_of_the_reference(seed):
    numbers = reference.uniforms((3, 7), seed, "cpu").flatten().tolist()
    assert numbers == [float(oracle.uniform(i, seed)) for i in range(21)]


# Hand numbers.

# What seed 2 draws begins so.
FIRST_OF_SEED_2 = [0.43, 0.5, 0.97, 0.4, 0.07, 0.23, 0.96, 0.5]


@on_each_device
@pytest.mark.parametrize("implementation", [reference.quantize, op], ids=["reference", "op"])
@pytest.mark.parametrize(
    ("x", "scale", "zero_point", "codes"),
    [
        ([0.25] * 8, 1.0, 0, [0, 0, 0, 0, 1, 1, 0, 0]),
        ([-0.25] * 8, 1.0, 0, [0, 0, -1, 0, 0, 0, -1, 0]),  # 0.75 beyond -1
        ([0.125] * 8, 0.5, 3, [3, 3, 3, 3, 4, 4, 3, 3]),
        ([2.0, -3.0, 0.0, -0.0, 127.0, -128.0, 1e9, -1e9], 1.0, 0, [2, -3, 0, 0, 127, -128, 127, -128]),
        ([126.9, 127.5, 300.25, -128.1, -1e-30, 1e-30, 1e-30, -1e-30], 1.0, 0, [127, 127, 127, -128, 0, 0, 0, 0]),
    ],
)
def test_hand_numbers(device, implementation, x, scale, zero_point, codes):
    assert [round(float(oracle.uniform(i, 2)), 2) for i in range(8)] == FIRST_OF_SEED_2
    x, scale = torch.tensor(x, device=device), torch.tensor(scale, device=device)
    zero_point = torch.tensor(zero_point, dtype=torch.int32, device=device)
    assert_bits(implementation(x, scale, zero_point, mode="stochastic", seed=2), torch.tensor(codes, dtype=torch.int8))


# What a user relies on.


@on_each_device
def test_errors_are_0_on_average(device):
    """10^6 draws at each place between two codes, and at places all over: within 4 standard errors of 0."""
    n = 10**6
    zero = torch.zeros((), device=device)
    for place in (0.5, 0.25, 0.9, 0.01, 2.0**-10, 1 - 2.0**-10):
        for x in (place, place - 7):
            codes = op(torch.full((n,), x, device=device), zero + 1, mode="stochastic", seed=11)
            assert set(codes.unique().tolist()) == {math.floor(x), math.floor(x) + 1}
            error = (codes.double() - x).mean().item()
            assert abs(error) <= 4 * math.sqrt(place * (1 - place) / n)
    x = normal(n).to(device)
    errors = op(x, zero + 0.1, mode="stochastic", seed=12).double() * float(zero + 0.1) - x.double()
    assert abs(errors.mean().item()) <= 4 * errors.std().item() / math.sqrt(n)


@on_each_device
def test_rounding_to_the_nearest_has_that_error(device):
    """The test above can fail: at 0.25, errors of other modes are -0.25."""
    x = torch.full((1000,), 0.25, device=device)
    assert (op(x, torch.ones((), device=device)) == 0).all()


@on_each_device
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("code_dtype", CODE_DTYPES, ids=str)
def test_exact_codes_never_move(device, dtype, code_dtype):
    limits = torch.iinfo(code_dtype)
    every = torch.arange(limits.min, limits.max + 1, device=device)
    for seed in range(20):
        for step in (1.0, 0.25, 2.0**-20):
            x = ((every - 3) * step).to(dtype)
            scale = torch.tensor(step, device=device)
            zero_point = torch.tensor(3, dtype=torch.int32, device=device)
            codes = op(x, scale, zero_point, dtype=code_dtype, mode="stochastic", seed=seed)
            assert_bits(codes, every.to(code_dtype))


@on_each_device
def test_codes_are_neighbours_of_the_quotient(device):
    x, scale = normal(100_000).to(device) * 100, torch.tensor(2.0, device=device)
    codes = op(x, scale, mode="stochastic", seed=3).double()
    steps = (x / scale).clamp(-128, 127).double()
    assert ((codes == steps.floor()) | (codes == steps.ceil())).all()


@on_each_device
def test_a_run_is_repeatable_and_seeds_differ(device):
    x, scale = normal(10_000).to(device), torch.tensor(0.1, device=device)
    first = op(x, scale, mode="stochastic", seed=1)
    assert_bits(op(x, scale, mode="stochastic", seed=1), first)
    for seed in (0, 2, -1, 1 + 2**32, 1 - 2**63):
        assert (op(x, scale, mode="stochastic", seed=seed) != first).float().mean() > 0.1
    for mode in ("onnx", "affine", "reciprocal"):
        assert_bits(op(x, scale, mode=mode, seed=1), op(x, scale, mode=mode, seed=2))


@on_each_device
def test_a_number_belongs_to_a_place_in_the_shape(device):
    """Not to one in memory, nor to a thread: parts drawn by a nest of other loops, and views, give the same codes."""
    x = normal(6, 7, 50, 44).to(device)  # more than a thread's share
    scale = torch.tensor(0.5, device=device)
    codes = op(x, scale, mode="stochastic", seed=9)
    for _, view in layouts(x):
        assert_bits(op(view, scale, mode="stochastic", seed=9), codes)
    assert_bits(op(x.flatten(), scale, mode="stochastic", seed=9).reshape(x.shape), codes)
    each = scale.expand(x.shape).contiguous()
    assert_bits(op(x, each, mode="stochastic", seed=9), codes)
    assert_bits(op(x, each.transpose(0, 3).contiguous().transpose(0, 3), mode="stochastic", seed=9), codes)
    # Numbers of the first elements do not depend on how many follow.
    assert_bits(op(x[:3], scale, mode="stochastic", seed=9), codes[:3])


@on_each_device
def test_a_permuted_tensor_draws_by_its_own_indices(device):
    x = normal(5, 9).to(device)
    scale = torch.tensor(0.5, device=device)
    transposed = op(x.t(), scale, mode="stochastic", seed=9)
    assert_bits(transposed, op(x.t().contiguous(), scale, mode="stochastic", seed=9))
    assert (transposed != op(x, scale, mode="stochastic", seed=9).t()).any()


@pytest.mark.parametrize(
    ("seed", "error", "words"),
    [
        (2**63, ValueError, "seed must fit int64, got 9223372036854775808"),
        (-(2**63) - 1, ValueError, "seed must fit int64, got -9223372036854775809"),
        (1.0, TypeError, "seed must be an int, got float"),
        (True, TypeError, "seed must be an int, got bool"),
        (None, TypeError, "seed must be an int, got NoneType"),
    ],
)
def test_seeds_that_do_not_fit(seed, error, words):
    with pytest.raises(error, match=f"quaver::quantize: {words}"):
        quaver.quantize(torch.ones(4), torch.tensor(1.0), mode="stochastic", seed=seed)


@on_each_device
def test_a_compiled_function_takes_every_seed(device):
    """A seed is no constant to compile for."""
    torch._dynamo.reset()

    def function(x, scale, seed):
        return quaver.quantize(x, scale, mode="stochastic", seed=seed)

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    x, scale = normal(100).to(device), torch.tensor(0.1, device=device)
    for seed in (5, 6, -7, 2**40):
        with torch._dynamo.config.patch(error_on_recompile=seed != 5):
            assert_bits(compiled(x, scale, seed), function(x, scale, seed))
