// matmul_argument.h: a matmul as Python's functions about plans take it: (architecture, multiprocessors, M, N, K,
// batches, layout of a, layout of b).
#pragma once

#include <Python.h>

#include "cuda/plan.h"

namespace quaver {

struct MatmulArgument {
  Device device;
  MatmulShape shape;
};

inline constexpr double kMostResults = 1ull << 55;  // whose bytes, in every part of K, are still counted

// A converter for PyArg_ParseTuple's "O&"; `to` is a MatmulArgument.
inline int matmul_argument(PyObject* tuple, void* to) {
  MatmulArgument& matmul = *static_cast<MatmulArgument*>(to);
  long long m = 0, n = 0, k = 0, batches = 0;
  int a_layout = 0, b_layout = 0;
  if (!PyTuple_Check(tuple)) {
    PyErr_Format(PyExc_TypeError, "a matmul must be a tuple, got %R", tuple);
    return 0;
  }
  if (!PyArg_ParseTuple(tuple, "iiLLLLii", &matmul.device.architecture, &matmul.device.multiprocessors, &m, &n, &k,
                        &batches, &a_layout, &b_layout))
    return 0;
  const auto is_size = [](long long size) { return size >= 0; };
  const double results = static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(batches);
  const auto is_layout = [](int layout) { return layout >= 0 && layout <= static_cast<int>(OperandLayout::kAny); };
  if (matmul.device.multiprocessors < 1 || !is_size(m) || !is_size(n) || !is_size(k) || !is_size(batches) ||
      results > kMostResults || !is_layout(a_layout) || !is_layout(b_layout)) {
    PyErr_Format(PyExc_ValueError, "%R is no matmul", tuple);
    return 0;
  }
  matmul.shape = {m, n, k, batches, static_cast<OperandLayout>(a_layout), static_cast<OperandLayout>(b_layout)};
  return 1;
}

}  // namespace quaver
