// fat_binary.cpp: the layout of nvcc's fat binaries, and the unpacking of their PTX.
#include "fat_binary.h"

#include <dlfcn.h>

#include <cstring>

namespace stand_in {
namespace {

struct Wrapper {
  uint32_t magic, version;
  const uint8_t* data;
  const void* unused;
};
struct Header {
  uint32_t magic;
  uint16_t version, header_size;
  uint64_t size;
};
struct Entry {
  uint16_t kind, version;
  uint32_t header_size;
  uint64_t size;  // of the payload, padded
  uint32_t compressed_size, options_offset;
  uint16_t minor, major;
  uint32_t architecture, name_offset, name_size;
  uint64_t flags, unused, uncompressed_size;
};
constexpr uint32_t kMagic = 0xBA55ED50;
constexpr uint16_t kPtx = 1;
constexpr uint64_t kLz4 = 0x2000;
constexpr uint64_t kZstd = 0x8000;

// g++ itself needs this library; its headers are not everywhere.
using Decompress = size_t (*)(void* to, size_t to_size, const void* from, size_t from_size);

Decompress zstd() {
  static void* const library = dlopen("libzstd.so.1", RTLD_NOW | RTLD_LOCAL);
  return library == nullptr ? nullptr : reinterpret_cast<Decompress>(dlsym(library, "ZSTD_decompress"));
}

// What a length goes on with: bytes to add, up to the first that is not 255.
bool add_rest(const uint8_t*& at, const uint8_t* end, size_t& length) {
  for (uint8_t byte = 255; byte == 255; length += byte) {
    if (at == end) return false;
    byte = *at++;
  }
  return true;
}

// A block of LZ4, which older releases of nvcc write: literals, then a copy of what stands so far back; false where it
// is damaged.
bool lz4(const char* from, size_t from_size, std::string& to) {
  const auto* at = reinterpret_cast<const uint8_t*>(from);
  const uint8_t* const end = at + from_size;
  while (at != end) {
    const uint8_t token = *at++;
    size_t literals = token >> 4;
    if (literals == 15 && !add_rest(at, end, literals)) return false;
    if (literals > static_cast<size_t>(end - at)) return false;
    to.append(reinterpret_cast<const char*>(at), literals);
    at += literals;
    if (at == end) return true;  // the last has no copy
    if (end - at < 2) return false;
    const size_t back = at[0] | at[1] << 8;
    at += 2;
    size_t copied = token & 15;
    if (copied == 15 && !add_rest(at, end, copied)) return false;
    if (back == 0 || back > to.size()) return false;
    for (copied += 4; copied > 0; --copied) to.push_back(to[to.size() - back]);  // of what it has just written, too
  }
  return true;
}

bool unzstd(const char* from, size_t from_size, size_t to_size, std::string& to) {
  to.resize(to_size);
  return zstd()(to.data(), to_size, from, from_size) == to_size;
}

void unpack(FatBinary::Ptx& ptx) {
  if (!(ptx.flags & (kLz4 | kZstd))) {
    ptx.text.assign(ptx.data, strnlen(ptx.data, ptx.size));
    return;
  }
  if ((ptx.flags & kZstd) && zstd() == nullptr) {
    ptx.problem = "its PTX is compressed, and libzstd.so.1 is not there: build with nvcc --no-compress";
    return;
  }
  const bool good = ptx.flags & kZstd ? unzstd(ptx.data, ptx.size, ptx.uncompressed_size, ptx.text)
                                      : lz4(ptx.data, ptx.size, ptx.text) && ptx.text.size() == ptx.uncompressed_size;
  if (!good) {
    ptx.text.clear();
    ptx.problem = "its PTX is damaged";
    return;
  }
  ptx.text.resize(strnlen(ptx.text.data(), ptx.text.size()));
}

}  // namespace

FatBinary::FatBinary(const void* wrapper) {
  const uint8_t* const data = static_cast<const Wrapper*>(wrapper)->data;
  const auto* const header = reinterpret_cast<const Header*>(data);
  if (header->magic != kMagic) return;
  const uint8_t* at = data + header->header_size;
  const uint8_t* const end = at + header->size;
  while (at < end) {
    const auto* entry = reinterpret_cast<const Entry*>(at);
    const bool compressed = entry->flags & (kLz4 | kZstd);
    if (entry->kind == kPtx)
      versions_.push_back({entry->architecture,
                           reinterpret_cast<const char*>(at) + entry->header_size,
                           compressed ? entry->compressed_size : entry->size,
                           entry->uncompressed_size,
                           entry->flags,
                           {},
                           {}});
    at += entry->header_size + entry->size;
  }
}

const FatBinary::Ptx* FatBinary::newest_for(uint32_t architecture) {
  Ptx* best = nullptr;
  for (Ptx& version : versions_)
    if (version.architecture <= architecture && (best == nullptr || version.architecture > best->architecture))
      best = &version;
  if (best != nullptr && best->text.empty() && best->problem.empty()) unpack(*best);
  return best;
}

}  // namespace stand_in
