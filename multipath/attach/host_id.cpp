#include "multipath/attach/host_id.h"

#include <algorithm>
#include <cctype>
#include <fstream>

namespace iscsi_blkback {
namespace {

constexpr std::size_t kMaxIdBytes = 64;

// The first word of the file, when it can be an id: digits and dashes, not all of them zero.
// machine-id(5) has "uninitialized" for a while at a first start.
std::string id_in(const std::string& path) {
  std::ifstream file(path);
  std::string id;
  file >> id;
  const bool usable =
      !id.empty() && id.size() <= kMaxIdBytes &&
      std::all_of(
          id.begin(), id.end(),
          [](unsigned char letter) { return std::isxdigit(letter) != 0 || letter == '-'; }) &&
      std::any_of(id.begin(), id.end(), [](char letter) { return letter != '0' && letter != '-'; });
  return usable ? id : std::string();
}

}  // namespace

std::string read_host_id(const std::string& root) {
  std::string machine = id_in(root + "/etc/machine-id");
  if (machine.empty()) {
    machine = id_in(root + "/var/lib/dbus/machine-id");  // without systemd
  }
  const std::string board = id_in(root + "/sys/class/dmi/id/product_uuid");
  return machine.empty() ? board : board.empty() ? machine : machine + "/" + board;
}

}  // namespace iscsi_blkback
