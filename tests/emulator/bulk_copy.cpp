// bulk_copy.cpp: cp.async.bulk and cp.async.bulk.tensor: copies that one thread starts and no thread carries out.
#include "machine.h"

namespace emulator {

namespace {

constexpr uint32_t kMagic = 0x50414D54;  // as in tensor_map.py

bool is_multiple(Warp& warp, int lane, uint64_t value, uint64_t of, const char* what) {
  if (value % of == 0) return true;
  warp.machine->report("misaligned access", warp, lane, value,
                       std::string(what) + " must be a multiple of " + std::to_string(of));
  return false;
}

// Global memory in the largest accesses that fit.
template <class Access>
void in_pieces(uint64_t address, uint64_t size, Access access) {
  for (uint64_t done = 0; done < size;) {
    uint64_t piece = 16;
    while ((address + done) % piece != 0 || done + piece > size) piece /= 2;
    access(address + done, done, static_cast<int>(piece));
    done += piece;
  }
}

void count(Warp& warp, uint64_t address, uint64_t size) {
  if (size == 0) return;
  CodeCounters& counters = warp.machine->counters[warp.code];
  counters.bytes += size;
  counters.units += (address + size - 1) / 32 - address / 32 + 1;
  counters.ideal += (size + 31) / 32;
}

void read_global(Warp& warp, int lane, uint64_t address, uint64_t size, uint8_t* to) {
  in_pieces(address, size,
            [&](uint64_t at, uint64_t done, int piece) { load_global(warp, lane, at, piece, to + done); });
  count(warp, address, size);
}

void write_global(Warp& warp, int lane, uint64_t address, uint64_t size, const uint8_t* from) {
  in_pieces(address, size,
            [&](uint64_t at, uint64_t done, int piece) { store_global(warp, lane, at, piece, from + done); });
  count(warp, address, size);
}

bool is_in_shared(Warp& warp, int lane, uint64_t address, uint64_t size) {
  if (address <= warp.block->shared.size() && size <= warp.block->shared.size() - address) return true;
  warp.machine->report("out of bounds", warp, lane, address,
                       "bulk copy of " + std::to_string(size) + " bytes in " +
                           std::to_string(warp.block->shared.size()) + " of shared memory");
  return false;
}

bool read_map(Warp& warp, int lane, uint64_t address, int rank, TensorMap& map) {
  if (!is_multiple(warp, lane, address, 64, "a tensor map's address")) return false;
  uint8_t bytes[sizeof map];
  for (uint64_t i = 0; i < sizeof map; i += 16)
    if (!load_generic(warp, lane, address + i, 16, bytes + i)) return false;
  std::memcpy(&map, bytes, sizeof map);
  if (map.magic == kMagic && map.rank == rank) return true;
  warp.machine->report("bad tensor map", warp, lane, address,
                       map.magic == kMagic ? "it has " + std::to_string(map.rank) + " dimensions"
                                           : std::string("no tensor map is there"));
  return false;
}

// The box's rows, each contiguous in global memory: calls row(address, first byte, end, place), with the bytes of the
// row that lie within the tensor, none for a row outside, and the row's place in shared memory before swizzling.
template <class Row>
void for_each_row(const TensorMap& map, const int32_t* at, Row row) {
  const int64_t width = static_cast<int64_t>(map.box[0]) * map.element;
  const int64_t start = static_cast<int64_t>(at[0]) * map.element;
  const int64_t extent = static_cast<int64_t>(map.extent[0]) * map.element;
  const int64_t first = std::clamp<int64_t>(-start, 0, width);
  const int64_t end = std::clamp<int64_t>(extent - start, first, width);
  uint64_t rows = 1;
  for (int d = 1; d < map.rank; ++d) rows *= map.box[d];
  for (uint64_t number = 0; number < rows; ++number) {
    uint64_t address = map.address + static_cast<uint64_t>(start);
    bool inside = true;
    uint64_t left = number;
    for (int d = 1; d < map.rank; ++d) {
      const int64_t place = at[d] + static_cast<int64_t>(left % map.box[d]);
      left /= map.box[d];
      inside &= 0 <= place && place < static_cast<int64_t>(map.extent[d]);
      address += static_cast<uint64_t>(place) * map.stride[d];
    }
    row(address, inside ? first : 0, inside ? end : 0, number * static_cast<uint64_t>(width));
  }
}

uint64_t box_bytes(const TensorMap& map) {
  uint64_t bytes = map.element;
  for (int d = 0; d < map.rank; ++d) bytes *= map.box[d];
  return bytes;
}

bool can_start(Warp& warp, int lane, const TensorMap& map, uint64_t shared) {
  return is_multiple(warp, lane, shared, 128, "a tile's address in shared memory") &&
         is_in_shared(warp, lane, shared, box_bytes(map));
}

void begin_store(Warp& warp, int lane, uint64_t from, uint64_t size) {
  begin_bulk_read(*warp.block, from, static_cast<int>(size));
  warp.bulk_stores[lane].open.emplace_back(from, static_cast<int>(size));
}

bool can_copy(Warp& warp, int lane, uint64_t shared, uint64_t global, uint32_t size) {
  return is_multiple(warp, lane, shared, 16, "a bulk copy's address in shared memory") &&
         is_multiple(warp, lane, global, 16, "a bulk copy's address in global memory") &&
         is_multiple(warp, lane, size, 16, "a bulk copy's size") && is_in_shared(warp, lane, shared, size);
}

}  // namespace

void load_bulk(Warp& warp, int lane, uint64_t to, uint64_t from, uint32_t size, uint64_t mbarrier) {
  if (!can_copy(warp, lane, to, from, size)) return;
  Flight flight{.to = to, .bytes = std::vector<uint8_t>(size)};
  read_global(warp, lane, from, size, flight.bytes.data());
  start_flight(warp, lane, mbarrier, std::move(flight));
}

void store_bulk(Warp& warp, int lane, uint64_t to, uint64_t from, uint32_t size) {
  if (!can_copy(warp, lane, from, to, size)) return;
  std::vector<uint8_t> bytes(size);
  for (uint32_t i = 0; i < size; i += 16) read_shared_asynchronously(warp, lane, from + i, 16, bytes.data() + i, -1, 0);
  write_global(warp, lane, to, size, bytes.data());
  begin_store(warp, lane, from, size);
}

void load_tile(Warp& warp, int lane, uint64_t to, uint64_t address, int rank, const int32_t* at, uint64_t mbarrier) {
  TensorMap map;
  if (!read_map(warp, lane, address, rank, map) || !can_start(warp, lane, map, to)) return;
  Flight flight{.to = to, .bytes = std::vector<uint8_t>(box_bytes(map))};
  std::vector<uint8_t> row(static_cast<size_t>(map.box[0]) * map.element);
  for_each_row(map, at, [&](uint64_t from, int64_t first, int64_t end, uint64_t place) {
    std::fill(row.begin(), row.end(), uint8_t{0});
    read_global(warp, lane, from + first, end - first, row.data() + first);
    for (size_t i = 0; i < row.size(); i += 16)
      std::memcpy(flight.bytes.data() + (swizzled(to + place + i, map.swizzle) - to), row.data() + i, 16);
  });
  start_flight(warp, lane, mbarrier, std::move(flight));
}

void store_tile(Warp& warp, int lane, uint64_t address, int rank, const int32_t* at, uint64_t from) {
  TensorMap map;
  if (!read_map(warp, lane, address, rank, map) || !can_start(warp, lane, map, from)) return;
  std::vector<uint8_t> row(static_cast<size_t>(map.box[0]) * map.element);
  for_each_row(map, at, [&](uint64_t to, int64_t first, int64_t end, uint64_t place) {
    for (int64_t i = first / 16 * 16; i < end; i += 16)
      read_shared_asynchronously(warp, lane, swizzled(from + place + i, map.swizzle), 16, row.data() + i, -1, 0);
    write_global(warp, lane, to + first, end - first, row.data() + first);
  });
  begin_store(warp, lane, from, box_bytes(map));
}

// A group for each lane, be it empty.
void commit_bulk_stores(Warp& warp) {
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(warp.mask >> lane & 1)) continue;
    BulkStores& stores = warp.bulk_stores[lane];
    stores.groups.push_back(std::move(stores.open));
    stores.open.clear();
  }
}

// All groups but the last `pending` have read what they copy.
void wait_for_bulk_stores(Warp& warp, size_t pending) {
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(warp.mask >> lane & 1)) continue;
    auto& groups = warp.bulk_stores[lane].groups;
    const size_t done = groups.size() - std::min(groups.size(), pending);
    for (size_t g = 0; g < done; ++g)
      for (const auto& [address, size] : groups[g]) end_bulk_read(warp, lane, address, size);
    groups.erase(groups.begin(), groups.begin() + done);
  }
}

}  // namespace emulator
