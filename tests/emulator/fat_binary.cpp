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

void unpack(FatBinary::Ptx& ptx) {
  if (!(ptx.flags & (kLz4 | kZstd))) {
    ptx.text.assign(ptx.data, strnlen(ptx.data, ptx.size));
    return;
  }
  if (!(ptx.flags & kZstd)) {
    ptx.problem = "its PTX is compressed, but not with zstd: build with nvcc --compress-mode=size";
    return;
  }
  if (zstd() == nullptr) {
    ptx.problem = "its PTX is compressed, and libzstd.so.1 is not there: build with nvcc --no-compress";
    return;
  }
  ptx.text.resize(ptx.uncompressed_size);
  const size_t size = zstd()(ptx.text.data(), ptx.text.size(), ptx.data, ptx.size);
  if (size != ptx.text.size()) {
    ptx.text.clear();
    ptx.problem = "its PTX is damaged";
    return;
  }
  ptx.text.resize(strnlen(ptx.text.data(), size));
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
