// driver.cpp: the CPU kernels without torch, one job of one thread each, so that their instructions can be counted.
//
// driver NAME runs a job over numbers that are the same every time; driver without a name lists them. What is counted
// is what happens below `counted`.
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cpu/kernels/channels_last.h"
#include "cpu/kernels/dequantize.h"
#include "cpu/kernels/dynamic_quantize.h"
#include "cpu/kernels/fake_quantize.h"
#include "cpu/kernels/linear_rows.h"
#include "cpu/kernels/matmul.h"
#include "cpu/kernels/qparams.h"
#include "cpu/kernels/quantize.h"
#include "cpu/kernels/requantize.h"
#include "cpu/kernels/rescale.h"
#include "cpu/kernels/rms_norm_quantize.h"
#include "cpu/kernels/silu_mul_quantize.h"

using namespace quaver;

namespace {

constexpr int64_t kRows = 32;
constexpr int64_t kColumns = 512;
constexpr int64_t kElements = kRows * kColumns;

std::mt19937 bits(1);

std::vector<float> floats(int64_t count, float least, float most) {
  std::vector<float> values(count);
  for (float& value : values) value = least + (most - least) * static_cast<float>(bits() >> 8) / (1 << 24);
  return values;
}

template <class T>
std::vector<T> integers(int64_t count, int64_t least, int64_t most) {
  std::vector<T> values(count);
  for (T& value : values) value = static_cast<T>(least + bits() % (most - least + 1));
  return values;
}

// The upper halves of float32 numbers are those of bfloat16.
std::vector<uint16_t> bfloats(const std::vector<float>& values) {
  std::vector<uint16_t> halves(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    uint32_t word;
    std::memcpy(&word, &values[i], sizeof word);
    halves[i] = static_cast<uint16_t>(word >> 16);
  }
  return halves;
}

const std::vector<float> x = floats(kElements, -4.0f, 4.0f);
const std::vector<uint16_t> x_bfloat16 = bfloats(x);
const std::vector<int8_t> q = integers<int8_t>(kElements, -128, 127);
const std::vector<int32_t> acc = integers<int32_t>(kElements, -100000, 100000);
const std::vector<float> scales = floats(kColumns, 0.01f, 0.04f);
const std::vector<int32_t> zero_points = integers<int32_t>(kColumns, -10, 10);
std::vector<float> y(kElements), made_scales(kColumns);
std::vector<int32_t> y_int32(kElements), made_zero_points(kColumns), sums(kColumns);
std::vector<uint8_t> codes(kElements);

// The loops of [rows, columns] with parameters for all, each row or each column.
enum Granularity { kTensor, kRow, kColumn };

ElementwiseNest elements(Granularity granularity) {
  ElementwiseNest nest;
  const int64_t by_row = granularity == kRow, by_column = granularity == kColumn;
  nest.push(kRows, {kColumns, kColumns, by_row, by_row});
  nest.push(kColumns, {1, 1, by_column, by_column});
  nest.merge();
  return nest;
}

ReductionNest reduction(Granularity granularity) {
  ReductionNest nest;
  nest.push(kRows, {kColumns, granularity == kRow});
  nest.push(kColumns, {1, granularity == kColumn});
  nest.merge();
  return nest;
}

ProductNest products() {
  ProductNest nest;
  nest.push(kRows, {kColumns, kColumns, 1, 0, 0, 0, 0});
  nest.push(kColumns, {1, 1, 0, 1, 1, 1, 1});
  return nest;
}

void choose_ranges(Granularity granularity) {
  QparamsArguments arguments{};
  arguments.nest = reduction(granularity);
  arguments.x = x.data();
  std::vector<float> lo(kColumns), hi(kColumns);
  widen_ranges(arguments, lo.data(), hi.data());
}

void quantize_job(FloatType type, Granularity granularity, QuantizeMode mode = QuantizeMode::kOnnx) {
  QuantizeArguments arguments{elements(granularity), x.data(),           type,        codes.data(), CodeType::kInt8,
                              scales.data(),         zero_points.data(), {-128, 127}, mode,         1};
  if (type == FloatType::kBFloat16) arguments.x = x_bfloat16.data();
  quantize_elements(arguments, 0, kElements);
}

void dequantize_job(Granularity granularity) {
  DequantizeArguments arguments{elements(granularity), q.data(),      CodeType::kInt8,   y.data(),
                                FloatType::kFloat32,   scales.data(), zero_points.data()};
  dequantize_elements(arguments, 0, kElements);
}

void fake_quantize_job(Granularity granularity) {
  FakeQuantizeArguments arguments{elements(granularity), x.data(),    FloatType::kFloat32, y.data(), scales.data(),
                                  zero_points.data(),    {-128, 127}, QuantizeMode::kOnnx, 0};
  fake_quantize_elements(arguments, 0, kElements);
}

void dynamic_quantize_job() {
  DynamicQuantizeArguments arguments{};
  arguments.qparams = {
      reduction(kRow), x.data(), FloatType::kFloat32, made_scales.data(), made_zero_points.data(), kRows, false,
      {-128, 127},     0.0f};
  arguments.quantize.q = codes.data();
  arguments.quantize.q_type = CodeType::kInt8;
  arguments.sums.sum = sums.data();
  arguments.sums_blocks = true;
  arguments.nest.push(kRows, {kColumns, kColumns, 1});
  arguments.nest.push(kColumns, {1, 1, 0});
  dynamic_quantize_blocks(arguments, split(arguments.nest), 0, kRows);
}

void requantize_job(RequantizeMode mode) {
  RequantizeData data{};
  data.acc = acc.data();
  data.q = codes.data();
  data.q_type = CodeType::kInt8;
  data.a_scale = data.b_scale = data.out_scale = scales.data();
  data.out_zero_point = zero_points.data();
  data.range = {-128, 127};
  data.mode = mode;
  requantize_elements({products(), data}, 0, kElements);
}

void rescale_job() {
  RescaleData data{acc.data(), y.data(), FloatType::kFloat32, scales.data(), scales.data(), nullptr, false};
  rescale_elements({products(), data}, 0, kElements);
}

RowCodes row_codes() {
  return {kRows, kColumns, codes.data(), made_scales.data(), made_zero_points.data(), nullptr, true, {-128, 127}};
}

void rms_norm_job() {
  RmsNormArguments arguments{};
  arguments.nest.push(kRows, {kColumns, kColumns});
  arguments.data.x = x.data();
  arguments.data.x_step = arguments.data.residual_step = 1;
  arguments.data.eps = 1e-6f;
  arguments.data.codes = row_codes();
  rms_norm_quantize_rows(arguments, scales.data(), 0, kRows);
}

void silu_mul_job() {
  SiluMulArguments arguments{};
  arguments.nest.push(kRows, {kColumns, kColumns});
  arguments.data = {x.data(), x.data(), FloatType::kFloat32, 1, 1, row_codes()};
  silu_mul_quantize_rows(arguments, 0, kRows);
}

// q [m, 512] times 128 columns of 512 codes, which are packed.
void matmul_job(int64_t m, MatmulOutput output) {
  constexpr int64_t kN = 128;
  MatmulProblem problem;
  problem.m = m;
  problem.n = kN;
  problem.k = kColumns;
  problem.a = {q.data(), {}, kColumns, 1};
  problem.b = {q.data(), {}, 1, kColumns};
  problem.a_scale = {scales.data(), {}, 1};
  problem.b_scale = {scales.data(), {}, 1};
  problem.out_scale = {scales.data(), {}, 1};
  problem.range = {-128, 127};
  problem.a_zero_point = {zero_points.data(), {}, 1};
  problem.out_type = output;
  problem.out = output == MatmulOutput::kInt8 ? static_cast<void*>(codes.data()) : y.data();
  const MatmulTasks tasks(problem);
  MatmulThread(problem, tasks, nullptr, false, contiguous_places(problem)).run(0, tasks.count(problem));
}

void linear_rows_job() {
  LinearRows rows;
  rows.nest.push(kRows, {kColumns, kColumns});
  rows.x = x.data();
  rows.x_type = FloatType::kFloat32;
  rows.step = 1;
  rows.count = kRows;
  rows.length = kColumns;
  rows.symmetric = true;
  rows.range = {-128, 127};
  rows.allocate();
  quantize_linear_rows(rows, 0, kRows);
}

const std::map<std::string, std::function<void()>> jobs = {
    {"choose_qparams, per tensor", [] { choose_ranges(kTensor); }},
    {"choose_qparams, per row", [] { choose_ranges(kRow); }},
    {"choose_qparams, per column", [] { choose_ranges(kColumn); }},
    {"quantize float32, per tensor", [] { quantize_job(FloatType::kFloat32, kTensor); }},
    {"quantize float32, per row", [] { quantize_job(FloatType::kFloat32, kRow); }},
    {"quantize float32, per column", [] { quantize_job(FloatType::kFloat32, kColumn); }},
    {"quantize bfloat16, per row", [] { quantize_job(FloatType::kBFloat16, kRow); }},
    {"quantize float32, per row, stochastic",
     [] { quantize_job(FloatType::kFloat32, kRow, QuantizeMode::kStochastic); }},
    {"dynamic_quantize, per row", dynamic_quantize_job},
    {"rms_norm_quantize", rms_norm_job},
    {"silu_mul_quantize", silu_mul_job},
    {"int8_matmul to int32, 1 x 128 x 512", [] { matmul_job(1, MatmulOutput::kInt32); }},
    {"int8_matmul to int32, 32 x 128 x 512", [] { matmul_job(32, MatmulOutput::kInt32); }},
    {"int8_matmul to float32, 32 x 128 x 512", [] { matmul_job(32, MatmulOutput::kFloat32); }},
    {"int8_matmul to int8, 32 x 128 x 512", [] { matmul_job(32, MatmulOutput::kInt8); }},
    {"rows of int8_linear", linear_rows_job},
    {"requantize", [] { requantize_job(RequantizeMode::kFloat); }},
    {"requantize, fixed", [] { requantize_job(RequantizeMode::kFixed); }},
    {"rescale", rescale_job},
    {"dequantize, per tensor", [] { dequantize_job(kTensor); }},
    {"dequantize, per column", [] { dequantize_job(kColumn); }},
    {"fake_quantize, per row", [] { fake_quantize_job(kRow); }},
};

}  // namespace

extern "C" __attribute__((noinline)) void counted(const std::function<void()>& job) { job(); }

int main(int count, char** arguments) {
  if (count < 2) {
    for (const auto& [name, job] : jobs) std::printf("%s\n", name.c_str());
    return 0;
  }
  const auto job = jobs.find(arguments[1]);
  if (job == jobs.end()) return 2;
  cpu_capability();  // is found out once
  counted(job->second);
  std::printf("%s\n", name_of(cpu_capability()));
  return 0;
}
