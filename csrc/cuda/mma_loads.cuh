// mma_loads.cuh: an operand's codes from global memory into a stage of shared memory, as lines along K.
#pragma once

#include "matmul_problem.h"
#include "mma_tile.cuh"
#include "plan.h"

namespace quaver {

// One operand of a batch: `lines` of them (rows of a, columns of b), each with `k` codes.
struct Lines {
  const uint8_t* codes;
  int64_t line_stride;
  int64_t k_stride;
  int64_t lines;
};

// Lines that are contiguous along K and aligned to 16 bytes. A thread copies one chunk of every kThreads / kChunks-th
// line. Beyond the last line it copies one again that is there: those results are not stored. Beyond K there are zeros.
template <class Tile, int kLines>
struct ChunkLoads {
  static constexpr int kLinesOfPass = Tile::kThreads / Tile::kChunks;
  static constexpr int kPasses = kLines / kLinesOfPass;
  static_assert(kLines % kLinesOfPass == 0);

  const uint8_t* from;  // what the first pass copies next
  int64_t step;         // to the next pass
  int last;             // pass with a line of its own
  uint32_t to;          // within a stage; passes change no place of a chunk

  __device__ __forceinline__ ChunkLoads(const Lines& operand, int64_t first_line, int k, uint32_t offset) {
    const int chunk = chunk_of_thread();
    const int line = threadIdx.x / Tile::kChunks;
    const int64_t behind = operand.lines - 1 - first_line - line;  // lines behind the first pass's
    from =
        operand.codes + (first_line + line + min(behind, int64_t{0})) * operand.line_stride + k + chunk * Tile::kChunk;
    step = kLinesOfPass * operand.line_stride;
    last = behind < kLinesOfPass ? 0 : static_cast<int>(min(behind / kLinesOfPass, int64_t{kPasses}));
    to = offset + chunk_offset(line, chunk);
  }

  static __device__ __forceinline__ int chunk_of_thread() { return threadIdx.x % Tile::kChunks; }

  // `left` codes are there from the chunk on.
  __device__ __forceinline__ void next(uint32_t stage, int left) {
    const int wanted = left < 0 ? 0 : left < Tile::kChunk ? left : Tile::kChunk;
    const uint8_t* source = from;
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      copy_async<Tile::kChunk>(stage + to + pass * kLinesOfPass * Tile::kK, source, wanted);
      if (pass < last) source += step;
    }
    from += Tile::kK;
  }
};

// Codes of four lines at four places along K, from words with neighbouring lines to words with neighbouring places.
// With `swapped` lines 0 and 1 change places, and 2 and 3.
__device__ __forceinline__ void transpose_codes(uint32_t (&word)[4], bool swapped) {
  const uint32_t first = swapped ? 0x7632 : 0x5410;
  const uint32_t second = swapped ? 0x5410 : 0x7632;
  const uint32_t low01 = __byte_perm(word[0], word[1], 0x5140);  // lines 0 and 1 of places 0 and 1
  const uint32_t low23 = __byte_perm(word[2], word[3], 0x5140);
  const uint32_t high01 = __byte_perm(word[0], word[1], 0x7362);
  const uint32_t high23 = __byte_perm(word[2], word[3], 0x7362);
  word[0] = __byte_perm(low01, low23, first);
  word[1] = __byte_perm(low01, low23, second);
  word[2] = __byte_perm(high01, high23, first);
  word[3] = __byte_perm(high01, high23, second);
}

// Lines of any strides and any alignment. What is not copied goes through registers, while the block waits.
template <class Tile, int kLines>
struct AnyLoads {
  Lines operand;
  OperandLayout layout;
  int64_t first_line;
  int k;  // of the stage that is loaded next
  int end;
  uint32_t offset;  // of the operand in a stage

  __device__ __forceinline__ void next(uint32_t stage) {
    if (layout <= OperandLayout::kWords) {
      if (layout == OperandLayout::kChunks) {
        copy<Tile::kChunk>(stage + offset);
      } else {
        copy<4>(stage + offset);
      }
    } else if (layout == OperandLayout::kTransposed) {
      transpose(stage + offset);
    } else {
      gather(stage + offset);
    }
    k += Tile::kK;
  }

 private:
  __device__ __forceinline__ int64_t existing_line(int line) const {
    const int64_t source = first_line + line;
    return source < operand.lines ? source : operand.lines - 1;
  }

  // Neighbouring threads copy neighbouring parts of a line.
  template <int kBytes>
  __device__ __forceinline__ void copy(uint32_t to) const {
    constexpr int kParts = Tile::kK / kBytes;
    static_assert(kLines * kParts % Tile::kThreads == 0);
#pragma unroll 2
    for (int round = 0; round < kLines * kParts / Tile::kThreads; ++round) {
      const int i = round * Tile::kThreads + threadIdx.x;
      const int line = i / kParts;
      const int place = i % kParts * kBytes;
      const int left = end - k - place;
      const int wanted = left < 0 ? 0 : left < kBytes ? left : kBytes;
      copy_async<kBytes>(to + chunk_offset(line, place / Tile::kChunk) + place % Tile::kChunk,
                         operand.codes + existing_line(line) * operand.line_stride + k + place, wanted);
    }
  }

  // Words with four neighbouring lines. A thread takes four lines of a chunk; a warp's eight times four lines are whole
  // sectors. Every other thread stores its lines in another order, so that eight threads that store at once reach all
  // banks.
  __device__ __forceinline__ void transpose(uint32_t to) const {
    static_assert(kLines <= Tile::kThreads);
    if (threadIdx.x >= kLines) return;
    const int chunk = threadIdx.x % Tile::kChunks;
    const int line = threadIdx.x / Tile::kChunks * 4;
    const bool swapped = line / 4 % 2 == 1;
    int64_t source = first_line + line;
    source = source < operand.lines ? source : operand.lines - 4;
    const uint8_t* from = operand.codes + source + (k + chunk * Tile::kChunk) * operand.k_stride;
    uint32_t codes[4][4];  // [four places along K][line]
#pragma unroll
    for (int place = 0; place < Tile::kChunk; ++place) {
      const bool exists = k + chunk * Tile::kChunk + place < end;
      codes[place / 4][place % 4] = exists ? *reinterpret_cast<const uint32_t*>(from) : 0;
      from += operand.k_stride;
    }
#pragma unroll
    for (int four = 0; four < 4; ++four) transpose_codes(codes[four], swapped);
#pragma unroll
    for (int j = 0; j < 4; ++j)
      store_shared(to + chunk_offset(line + (swapped ? j ^ 1 : j), chunk), codes[0][j], codes[1][j], codes[2][j],
                   codes[3][j]);
  }

  // Code by code; neighbouring threads take neighbouring chunks of a line where K is contiguous, and lines elsewhere.
  __device__ __forceinline__ void gather(uint32_t to) const {
    const bool along_k = operand.k_stride == 1;
    static_assert(kLines * Tile::kChunks % Tile::kThreads == 0);
#pragma unroll 1
    for (int round = 0; round < kLines * Tile::kChunks / Tile::kThreads; ++round) {
      const int i = round * Tile::kThreads + threadIdx.x;
      const int line = along_k ? i / Tile::kChunks : i % kLines;
      const int chunk = along_k ? i % Tile::kChunks : i / kLines;
      const int64_t first = k + chunk * Tile::kChunk;
      const uint8_t* from = operand.codes + existing_line(line) * operand.line_stride + first * operand.k_stride;
      uint32_t word[4] = {};
#pragma unroll
      for (int place = 0; place < Tile::kChunk; ++place) {
        if (first + place < end) word[place / 4] |= static_cast<uint32_t>(*from) << (place % 4 * 8);
        from += operand.k_stride;
      }
      store_shared(to + chunk_offset(line, chunk), word[0], word[1], word[2], word[3]);
    }
  }
};

}  // namespace quaver
