// The memory that the host's disks at one LUN share: whatever it holds, a disk that comes and goes
// reads nothing beyond it, believes no time of it that is out of range, and leaves its slot free.
// So does one that comes by the names that are told in another LUN's file.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>

#include "multipath/fencing/barrier_use.h"
#include "tests/support/blocking_barrier.h"
#include "tests/support/temporary_folder.h"

namespace {

using namespace iscsi_blkback;

constexpr TimePoint kNow{std::chrono::hours(24)};

void require(bool condition) {
  if (!condition) {
    __builtin_trap();
  }
}

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

BarrierNames own_names() {
  BarrierNames names;
  names.add({.designators = {{.code_set = 2, .type = 1, .bytes = "SIM     one"}}}, "iqn.target");
  return names;
}

// Names as the input has them, in a file of their own; where that is forwarded to, too.
void fill_names(const TemporaryFolder& folder, const std::uint8_t* data, std::size_t size) {
  const auto file = BarrierFile::open(folder.path(), "names");
  require(file.has_value());
  file->header().names_used = 0;
  require(file->add_names(own_names()).has_value());  // so that there is room for one
  barrier_layout::Header& header = file->header();
  std::memset(static_cast<void*>(header.forwarded_to.data()), 0, header.forwarded_to.size());
  header.forwarded = size != 0 ? data[0] % 4 == 3 : 0;
  header.names_used = size > 1 ? data[1] : 0;
  copy(reinterpret_cast<std::uint8_t*>(header.forwarded_to.data()), data,
       std::min(size, header.forwarded_to.size()));
  const UniqueFd fd(::open(file->path().c_str(), O_RDWR | O_CLOEXEC));
  require(::pwrite(fd.get(), data, std::min(size, sizeof(barrier_layout::Name) * 4),
                   offsetof(barrier_layout::Contents, names)) >= 0);
  const BarrierNames names = file->names();
  require(names.known.size() <= BarrierNames::kMost);
  for (const BarrierName& name : names.known) {
    require(name.target_name.size() <= 224 && name.name.serial.size() <= 255);
    require(name.name.designators.size() + (name.name.serial.empty() ? 0 : 1) == 1);
  }
  const std::string forwarded_to = file->forwarded_to();
  require(forwarded_to.empty() ||
          std::filesystem::path(forwarded_to).parent_path() == folder.path());
}

void come_and_go(const TemporaryFolder& folder) {
  auto barrier = BlockingBarrier::enter(
      folder.path(), "lun", {.name = "xvda of guest 5", .quiesce_time = std::chrono::seconds(60)},
      {}, own_names());
  if (!barrier) {
    return;  // every slot is taken by a dead disk that is not harmless
  }
  const BlockingBarrier::Others others = barrier->look(kNow);
  require(others.in_use_by.empty() && others.late_writes_of.empty());  // nobody lives here
  for (const BlockingBarrier::DeadHolder& dead : others.dead) {
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
  static const TemporaryFolder folder;
  // Where an earlier input has led.
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    const std::string name = entry.path().stem();
    if (name != "lun" && name != "names") {
      std::filesystem::remove(entry);
    }
  }
  const auto file = BarrierFile::open(folder.path(), "lun");
  require(file.has_value());
  file->header().forwarded = 0;
  file->header().names_used = 0;
  fill(*file, data, size);
  fill_names(folder, data, size);
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
