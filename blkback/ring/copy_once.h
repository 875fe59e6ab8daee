// copy_once: takes a struct out of memory that a hostile guest may be writing at the same moment.
// Each word is loaded exactly once (XSA-155), so that what is checked is what is used; the loads
// are atomic, so that the compiler can neither repeat nor split them and ThreadSanitizer agrees.
// The copy may be torn between words: it is then merely another request that the guest could have
// sent. Pure; any thread.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace iscsi_blkback {

template <class T>
[[nodiscard]] T copy_once(std::byte* shared) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % sizeof(std::uint32_t) == 0);
  std::array<std::uint32_t, sizeof(T) / sizeof(std::uint32_t)> words;
  auto* from = reinterpret_cast<std::uint32_t*>(shared);
  for (std::size_t i = 0; i < words.size(); ++i) {
    words[i] = std::atomic_ref<std::uint32_t>(from[i]).load(std::memory_order_relaxed);
  }
  return std::bit_cast<T>(words);
}

// The other way, for a struct that the other side may be reading.
template <class T>
void store_once(std::byte* shared, const T& value) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % sizeof(std::uint32_t) == 0);
  const auto words =
      std::bit_cast<std::array<std::uint32_t, sizeof(T) / sizeof(std::uint32_t)>>(value);
  auto* to = reinterpret_cast<std::uint32_t*>(shared);
  for (std::size_t i = 0; i < words.size(); ++i) {
    std::atomic_ref<std::uint32_t>(to[i]).store(words[i], std::memory_order_relaxed);
  }
}

}  // namespace iscsi_blkback
