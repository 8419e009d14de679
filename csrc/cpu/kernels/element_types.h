// element_types.h: from the names of element types to the types themselves. No torch header.
#pragma once

#include "cpu/kernels/convert.h"
#include "matmul_problem.h"
#include "types.h"

namespace quaver {

template <class T>
struct TypeTag {
  using type = T;
};

// Calls body(TypeTag<T>{}) with the type in memory.
template <class Body>
void with_type(FloatType type, const Body& body) {
  switch (type) {
    case FloatType::kFloat32:
      return body(TypeTag<float>{});
    case FloatType::kFloat16:
      return body(TypeTag<Float16>{});
    case FloatType::kBFloat16:
      return body(TypeTag<BFloat16>{});
  }
}

template <class Body>
void with_type(CodeType type, const Body& body) {
  switch (type) {
    case CodeType::kInt8:
      return body(TypeTag<int8_t>{});
    case CodeType::kUint8:
      return body(TypeTag<uint8_t>{});
  }
}

template <class Body>
void with_type(MatmulOutput type, const Body& body) {
  switch (type) {
    case MatmulOutput::kInt32:
      return body(TypeTag<int32_t>{});
    case MatmulOutput::kFloat32:
      return body(TypeTag<float>{});
    case MatmulOutput::kFloat16:
      return body(TypeTag<Float16>{});
    case MatmulOutput::kBFloat16:
      return body(TypeTag<BFloat16>{});
    case MatmulOutput::kInt8:
      return body(TypeTag<int8_t>{});
    case MatmulOutput::kUint8:
      return body(TypeTag<uint8_t>{});
  }
}

}  // namespace quaver
