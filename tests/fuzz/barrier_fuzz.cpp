// The memory that the host's disks at one LUN share: whatever it holds, a disk that comes and goes
// reads nothing beyond it, believes no time of it that is out of range, and leaves its slot free.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include "multipath/lun_write_barrier.h"

namespace {

using namespace iscsi_blkback;

constexpr TimePoint kNow{std::chrono::hours(24)};

void require(bool condition) {
  if (!condition) {
    __builtin_trap();
  }
}

// A folder of this process's, which goes when it ends.
class Folder {
 public:
  Folder() {
    std::string made = (std::filesystem::temp_directory_path() / "barrier-fuzz-XXXXXX").string();
    require(::mkdtemp(made.data()) != nullptr);
    path_ = made;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// An empty input has no address, which memcpy() does not take even for no bytes.
void copy(void* to, const std::uint8_t* from, std::size_t bytes) {
  if (bytes != 0) {
    std::memcpy(to, from, bytes);
  }
}

// Header and slots as the input has them, and what is left of it at the nexuses of the first slots.
void fill(const BarrierFile& file, const std::uint8_t* data, std::size_t size) {
  constexpr std::size_t kFront = offsetof(barrier_layout::Contents, nexuses);
  constexpr std::size_t kNexuses = 4;
  constexpr std::size_t kHeader = sizeof(barrier_layout::Header);
  auto* const front = reinterpret_cast<std::uint8_t*>(&file.header());
  auto* const slots = reinterpret_cast<std::uint8_t*>(&file.slot(0));
  std::memset(front + kHeader, 0, kFront - kHeader);
  const std::size_t slot_bytes = std::min(size, kNexuses * sizeof(barrier_layout::Slot));
  copy(slots, data, slot_bytes);
  data += slot_bytes;
  size -= slot_bytes;
  for (std::size_t slot = 0; slot < kNexuses; ++slot) {
    const std::size_t bytes = std::min(size, sizeof(barrier_layout::Nexus));
    barrier_layout::Nexus& nexus = file.nexus(slot, 0);
    std::memset(static_cast<void*>(&nexus), 0, sizeof nexus);
    copy(&nexus, data, bytes);
    data += bytes;
    size -= bytes;
  }
}

void come_and_go(const Folder& folder) {
  auto barrier = LunWriteBarrier::enter(
      folder.path(), "lun", {.name = "xvda of guest 5", .quiesce_time = std::chrono::seconds(60)});
  if (!barrier) {
    return;  // every slot is taken by a dead disk that is not harmless
  }
  const LunWriteBarrier::Others others = barrier->look(kNow);
  require(others.in_use_by.empty() && others.late_writes_of.empty());  // nobody lives here
  for (const LunWriteBarrier::DeadHolder& dead : others.dead) {
    require(dead.until > kNow && dead.until <= kNow + barrier_layout::kLongestQuiesceTime);
    for (std::uint32_t path = 0; path < kMaxPaths; ++path) {
      const auto nexus = barrier->nexus_of({dead.slot, dead.turn, path});
      if (nexus) {
        require(nexus->initiator_name.size() <= 224 && nexus->target_name.size() <= 224);
        require(nexus->interface_binding.name.size() <= 16);
        barrier->set_nexus(path, *nexus);
      }
      barrier->reinstated({dead.slot, dead.turn, path});
    }
  }
  // Time alone makes all of them harmless.
  require(barrier->look(kNow + barrier_layout::kLongestQuiesceTime).may_write());
  barrier->leave();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Folder folder;
  const auto file = BarrierFile::open(folder.path(), "lun");
  require(file.has_value());
  fill(*file, data, size);
  if (size % 2 == 1) {
    note_death_in_barriers(folder.path(), file->slot(0).pid, kNow);
  }
  come_and_go(folder);
  for (std::size_t slot = 0; slot < barrier_layout::kSlots; ++slot) {
    require(file->try_lock(slot));
    file->unlock(slot);
  }
  return 0;
}
