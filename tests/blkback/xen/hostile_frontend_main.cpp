// hostile_frontend: a program for a guest of the lab, see tests/support/hostile_frontend.h. The disk's
// device must have no driver: /sys/bus/xen/drivers_autoprobe is 0 while it is attached.
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>

#include "tests/blkback/xen/libxen_guest_platform.h"
#include "tests/support/hostile_frontend.h"

namespace {

template <class Number>
bool parse(const char* text, Number& number) {
  const char* end = text + std::strlen(text);
  return std::from_chars(text, end, number).ptr == end && end != text;
}

}  // namespace

int main(int argc, char** argv) {
  using iscsi_blkback::HostileFrontend;
  HostileFrontend::Options options;
  unsigned seconds = 0;
  const auto modes = HostileFrontend::kModes;
  const bool understood = (argc == 4 || argc == 5) && parse(argv[1], options.device_id) &&
                          std::find(modes.begin(), modes.end(), argv[2]) != modes.end() &&
                          parse(argv[3], seconds) && (argc == 4 || parse(argv[4], options.seed));
  if (!understood) {
    std::fprintf(
        stderr,
        "usage: hostile_frontend DEVICE-ID reconnect|flap|bad-requests|bad-ring|storm|busy|greedy "
        "SECONDS [SEED]\n");
    return 2;
  }
  options.duration = std::chrono::seconds(seconds);
  std::string why;
  const auto guest = iscsi_blkback::open_guest_platform(&why);
  if (guest == nullptr) {
    std::fprintf(stderr, "hostile_frontend: %s\n", why.c_str());
    return 1;
  }
  HostileFrontend frontend(*guest, options);
  const std::string wrong = frontend.run(argv[2]);
  std::printf("%s: %s\n", argv[2], frontend.summary().c_str());
  if (!wrong.empty()) {
    std::printf("%s: %s\n", argv[2], wrong.c_str());
    return 1;
  }
  return 0;
}
