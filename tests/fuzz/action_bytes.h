// ActionBytes: what a fuzzer gives, taken as numbers that choose actions; zeros when there is no more. The fuzz targets that
// play lists of actions stand on it. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>

namespace iscsi_blkback {

class ActionBytes {
 public:
  ActionBytes(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  [[nodiscard]] bool empty() const { return at_ >= size_; }
  std::uint8_t u8() { return empty() ? std::uint8_t{0} : data_[at_++]; }
  std::uint16_t u16() {
    const std::uint8_t low = u8();
    return static_cast<std::uint16_t>(low | (u8() << 8));
  }
  std::uint32_t u32() {
    const std::uint32_t low = u16();
    return low | (std::uint32_t{u16()} << 16);
  }
  // The corpus of the ring has this order.
  std::uint64_t u64() {
    std::uint64_t value = 0;
    for (int i = 0; i < 8; ++i) {
      value = (value << 8) | u8();
    }
    return value;
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
  std::size_t at_ = 0;
};

}  // namespace iscsi_blkback
