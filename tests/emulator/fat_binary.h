// fat_binary.h: what nvcc embeds in an object for the devices of its list: PTX and machine code, compressed or not.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace stand_in {

class FatBinary {
 public:
  struct Ptx {
    uint32_t architecture;
    const char* data;
    uint64_t size, uncompressed_size, flags;
    std::string text;     // once it was asked for
    std::string problem;  // why there is none
  };

  // `wrapper` is what nvcc's own code registers, and stays where it is.
  explicit FatBinary(const void* wrapper);

  // The newest PTX that a device can run, as the driver chooses: null where there is none.
  const Ptx* newest_for(uint32_t architecture);

 private:
  std::vector<Ptx> versions_;
};

}  // namespace stand_in
