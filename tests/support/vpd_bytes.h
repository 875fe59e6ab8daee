// Vital product data for tests, byte by byte.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <string_view>
#include <vector>

namespace iscsi_blkback {

using Bytes = std::vector<std::byte>;

inline Bytes octets(std::initializer_list<int> values) {
  Bytes result;
  for (const int value : values) {
    result.push_back(static_cast<std::byte>(value));
  }
  return result;
}

inline Bytes text(std::string_view characters) {
  Bytes result;
  for (const char c : characters) {
    result.push_back(static_cast<std::byte>(c));
  }
  return result;
}

inline Bytes joined(std::initializer_list<Bytes> parts) {
  Bytes result;
  for (const Bytes& part : parts) {
    result.insert(result.end(), part.begin(), part.end());
  }
  return result;
}

inline Bytes page(int code, const Bytes& body) {
  return joined(
      {octets({0, code, static_cast<int>(body.size() >> 8), static_cast<int>(body.size() & 0xff)}),
       body});
}

// Of the LUN (association 0).
inline Bytes designator(int code_set, int type, const Bytes& value) {
  return joined({octets({code_set, type, 0, static_cast<int>(value.size())}), value});
}

inline constexpr int kBinary = 1;
inline constexpr int kAscii = 2;
inline constexpr int kUtf8 = 3;
inline constexpr int kVendorSpecific = 0;
inline constexpr int kT10 = 1;
inline constexpr int kEui64 = 2;
inline constexpr int kNaa = 3;
inline constexpr int kName = 8;

}  // namespace iscsi_blkback
