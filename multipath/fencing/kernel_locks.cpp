#include "multipath/fencing/kernel_locks.h"

#include <charconv>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>

namespace iscsi_blkback {
namespace {

// Of a line like "1: OFDLCK ADVISORY  WRITE -1 00:19:1234 4711 4711".
std::optional<ExclusiveLock> exclusive_lock_of(std::string_view line) {
  if (line.find(" OFDLCK ") == line.npos || line.find(" WRITE ") == line.npos) {
    return std::nullopt;
  }
  const auto number = [](std::string_view text, auto& value) {
    return std::from_chars(text.data(), text.data() + text.size(), value).ptr ==
           text.data() + text.size();
  };
  ExclusiveLock lock;
  const std::string_view end = line.substr(line.rfind(' ') + 1);
  const std::string_view file = line.substr(0, line.rfind(' ', line.rfind(' ') - 1));
  if (!number(end, lock.at) || !number(file.substr(file.rfind(':') + 1), lock.inode)) {
    return std::nullopt;
  }
  return lock;
}

}  // namespace

// The kernel shows the list in pieces: what changes meanwhile makes a lock be in it twice or not at
// all. So it is read until it is the same twice; what was seen in any of the readings counts.
std::set<ExclusiveLock> exclusive_locks(const std::function<bool(const ExclusiveLock&)>& wanted) {
  constexpr int kMostReadings = 16;
  const auto read = [&] {
    std::set<ExclusiveLock> found;
    std::ifstream locks("/proc/locks");
    for (std::string line; std::getline(locks, line);) {
      if (const auto lock = exclusive_lock_of(line); lock && wanted(*lock)) {
        found.insert(*lock);
      }
    }
    return found;
  };
  auto found = read();
  for (int reading = 1; reading < kMostReadings; ++reading) {
    const auto again = read();
    const bool same = again == found;
    found.insert(again.begin(), again.end());
    if (same && reading > 1) {
      break;
    }
  }
  return found;
}

}  // namespace iscsi_blkback
