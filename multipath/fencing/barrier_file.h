// BarrierFile: the memory that all disks of this host which lead to one LUN share: a file in a
// folder of the host's (on a tmpfs), mapped by each of them. One slot for each disk that may write;
// what the slots mean is LunWriteBarrier's affair. Owned by LunWriteBarrier, one each.
//
// Who has a slot holds a lock on one byte of the file, the slot's, by its own open file description
// (fcntl(2), F_OFD_SETLK): the kernel releases it however the holder ends. A slot that is in use
// and not locked is that of a disk whose process has died. Where the locked byte is, beyond the end
// of the file, depends on the file's path, so that /proc/locks tells of a holder whose file has
// been removed by somebody who cleans folders. The holder's further names of the LUN are locked in
// the same way, each where the slot of a file of that name would be.
//
// The file has the names of its LUN, which are read and written by whoever holds the BarrierFolder
// only. Where the LUN turns out to be that of another file, this one is forwarded there, for good.
// Thread: its owner's. BarrierThread has it while a disk enters or follows its file, and does there
// what is file I/O: opening, allocation, names, is_current(), the search for removed files. On the
// reactor's thread are locks, which do not wait, and the closing. The service's control thread looks
// at files that no disk has (barrier_use.h). What is mapped is allocated before it is touched, as a
// full file system would end the process (SIGBUS). Everything read from the file counts as hostile:
// times and lengths are bounded, texts end in their fields.
#pragma once

#include <sys/types.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/clock.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "multipath/fencing/barrier_names.h"
#include "multipath/path/path_mask.h"

namespace iscsi_blkback {

// The layout, the same in all processes that see each other. Whoever changes it changes kVersion,
// and with it the file's name and its first word: processes of two layouts do not see each other.
namespace barrier_layout {

inline constexpr char kVersion = '5';

// One path of a disk: the nexus that its writes go through, as who comes later needs it in order to
// log in with the same ISID. Texts end in NUL. Written by its holder only.
struct Nexus {
  std::uint32_t in_use;  // atomic; the rest is complete while it is 1
  std::array<std::uint8_t, 6> isid;
  std::uint8_t portal_group_known;
  std::uint8_t reserved;
  std::uint16_t portal_group;
  std::uint16_t session_number;
  std::array<char, 224> initiator_name;  // RFC 7143 4.2.7.1: at most 223 bytes
  std::array<char, 224> target_name;
  std::array<char, 72> portal;            // where the session begins its logins, numeric
  std::array<char, 72> peer;              // where the last one has led
  std::array<char, 16> interface_name;    // IFNAMSIZ
  std::array<char, 72> source_address;    // numeric
  std::array<char, 20> hardware_address;  // "52:54:00:12:34:56"
};

struct Slot {
  std::uint32_t in_use;        // atomic
  std::uint32_t use;           // atomic: a HolderUse
  std::uint32_t shared;        // atomic: other disks may write at the same time
  std::int32_t pid;            // of the disk's process
  std::uint64_t turn;          // atomic: a lower one comes first; its upper bits (kHeirBits) are a
                               // place in the line, the lower ones a number among those that
                               // have had the place one after the other
  std::uint64_t outstanding;   // atomic, PathMask: writes are at these paths
  std::uint64_t unfenced;      // atomic: writes lost at these paths may still be executed, and
                               // kElsewhere: one word, which changes all at once
  std::uint32_t nexuses_used;  // so many, from path 0 on, are allocated
  std::uint32_t domain;        // of the guest
  std::int64_t unfenced_until_ns;  // atomic: then the target has given up what was lost
  std::int64_t died_at_ns;  // atomic: when the process was found dead, or the place was left to
                            // the guest's next disk; 0: it was not yet
  std::int64_t quiesce_time_ns;  // see MultipathOptions; at most kLongestQuiesceTime is believed
  std::uint64_t vm;              // atomic: see GuestNow
  std::int64_t suspended_at_ns;  // atomic: when that was noticed last
  std::uint64_t known_writer;    // atomic: 1 + Header::writer when the guest was suspended, here or
                                 // where it is moved from; 0: the disk has had the LUN since
  std::uint64_t passed_on;       // atomic: 1: a disk has taken the place and has written since
  std::array<char, 112> holder;  // for messages: "xvda of guest 5"
};

struct Header {
  std::uint64_t magic;       // atomic; 0: the file is new
  std::uint64_t changes;     // atomic: counts what concerns other disks
  std::uint64_t last_place;  // atomic, without its kHeirBits
  std::uint64_t last_heir;   // atomic
  std::uint64_t returned;    // atomic: counts disks that came here from a file that was removed
  std::uint64_t writer;      // atomic: the turn of the disk that has begun to write last
  std::uint64_t forwarded;   // atomic: 1: the file of the LUN is forwarded_to
  std::uint64_t names_used;  // so many, from the first one on, are allocated
  std::array<char, 256> forwarded_to;  // its name in the folder
};

// One of the LUN's names.
struct Name {
  std::uint8_t is_serial;  // 1: a serial number, 0: a designator
  std::uint8_t code_set;
  std::uint8_t type;
  std::uint8_t length_bytes;
  std::array<char, 256> bytes;  // any
  std::array<char, 224> target_name;
};

// In Slot::unfenced, beside the bits of paths: writes lost where no login that the slot tells of
// can fence them; those of the last path, whose bit this is, too.
inline constexpr std::uint64_t kElsewhere = std::uint64_t{1} << (kMaxPaths - 1);

// A place is a time in nanoseconds, and so are its lower bits of no use.
inline constexpr unsigned kHeirBits = 16;
inline constexpr std::uint64_t kMaxHeir = (std::uint64_t{1} << kHeirBits) - 1;
inline constexpr std::uint64_t kMaxPlace = INT64_MAX >> kHeirBits;

// Disks that use one LUN at once. A cluster's file system has no more nodes than that; a disk that
// finds no slot is not served.
inline constexpr std::size_t kSlots = 128;
// The configuration allows no longer one.
inline constexpr Duration kLongestQuiesceTime = std::chrono::hours(1);
inline constexpr std::uint64_t kMagic = 0x69736373'62617200 + kVersion;

// The file is sparse: nexuses and names take memory when they are first set, the rest is seven
// pages.
struct Contents {
  Header header;
  std::array<Slot, kSlots> slots;
  std::array<std::array<Nexus, kMaxPaths>, kSlots> nexuses;
  std::array<Name, BarrierNames::kMost> names;
};
static_assert(std::is_trivially_copyable_v<Contents>);
static_assert(offsetof(Contents, nexuses) <= 7 * 4096);

}  // namespace barrier_layout

// A field that other processes read or write at the same time.
template <class T>
class SharedField {
 public:
  explicit SharedField(T& field) : field_(field) {}
  // Sequentially consistent, but for store_release(): two disks that come at the same time each
  // tell that they are there and then look, and one of them at least must see the other.
  [[nodiscard]] T load() const { return field_.load(); }
  void store(T value) const { field_.store(value); }
  void store_release(T value) const { field_.store(value, std::memory_order_release); }
  T add(T value) const { return field_.fetch_add(value); }
  // Adds 1, or goes on from at_least. The new value.
  T next(T at_least) const {
    T last = field_.load();
    while (!field_.compare_exchange_weak(last, std::max<T>(last + 1, at_least))) {
    }
    return std::max<T>(last + 1, at_least);
  }
  void raise(T at_least) const {
    T now = field_.load();
    while (now < at_least && !field_.compare_exchange_weak(now, at_least)) {
    }
  }
  void clear_bits(T bits) const { field_.fetch_and(~bits); }
  // False: it was something else already.
  bool replace(T expected, T value) const {
    return field_.compare_exchange_strong(expected, value);
  }

 private:
  std::atomic_ref<T> field_;
};

class BarrierFile {
 public:
  // The folder is made where it does not exist. key: not empty; names the LUN, whatever it
  // contains. Errors, of all three: one sentence with the file's path; the system call's; conflict,
  // something else is there.
  [[nodiscard]] static Result<BarrierFile> open(const std::string& folder, std::string_view key);
  // Made where it does not exist.
  [[nodiscard]] static Result<BarrierFile> open_path(const std::string& path);
  // What a file says of its LUN, without its being mapped: for a search among many.
  struct About {
    bool forwarded = false;
    BarrierNames names;
    std::uint64_t last_place = 0;
  };
  // Whether no slot is in use, of a disk that has died included.
  [[nodiscard]] static bool is_unused(const std::string& path);
  // nullopt: it is no file of this layout.
  [[nodiscard]] static std::optional<About> about(const std::string& path);
  [[nodiscard]] static std::string path_of(const std::string& folder, std::string_view key);
  // Whether a file of this name has this layout.
  [[nodiscard]] static bool is_barrier_file(std::string_view file_name);
  // Of whichever LUN. not_found: there is none.
  [[nodiscard]] static Result<BarrierFile> open_existing(const std::string& path);

  BarrierFile() = default;
  BarrierFile(BarrierFile&&) noexcept = default;
  BarrierFile& operator=(BarrierFile&&) noexcept = default;

  [[nodiscard]] bool valid() const { return memory_ != nullptr; }
  [[nodiscard]] barrier_layout::Header& header() const { return memory_->header; }
  // Whether its path still leads to the file, and not to another one or none.
  [[nodiscard]] bool is_current() const;
  // index: below kSlots.
  [[nodiscard]] barrier_layout::Slot& slot(std::size_t index) const {
    return memory_->slots[index];
  }
  // path: below Slot::nexuses_used.
  [[nodiscard]] barrier_layout::Nexus& nexus(std::size_t index, std::uint32_t path) const {
    return memory_->nexuses[index][path];
  }
  // Those of all paths, as zeros where they were not there yet. False: there is no space.
  [[nodiscard]] bool allocate_nexuses(std::size_t index) const;
  // As the file has them; what is no name is passed over.
  [[nodiscard]] BarrierNames names() const;
  // Those that are not there yet, as far as there is room. The error: no space.
  [[nodiscard]] Result<void> add_names(const BarrierNames& names) const;
  // Whoever has come here goes to `file`, of the same folder, and so does whoever comes.
  void forward_to(const BarrierFile& file) const;
  [[nodiscard]] bool is_forwarded() const { return SharedField(header().forwarded).load() != 0; }
  // The path of that file; empty: what is told is none.
  [[nodiscard]] std::string forwarded_to() const;
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] bool is_same_file(const BarrierFile& other) const;

  // Tells all others that something has changed which concerns them.
  void note_change() const { SharedField(header().changes).add(1); }

  // To find out whether the slot's holder lives, and to keep the slot from being taken meanwhile.
  // False: the holder lives. Others who look at the same time are no hindrance.
  [[nodiscard]] bool try_lock_shared(std::size_t index) const;
  // To take the slot, also by whoever has it shared. False: another one has it, or looks at it.
  [[nodiscard]] bool try_lock(std::size_t index) const;
  void unlock(std::size_t index) const;
  // By whoever has the slot, for holders_of_removed_files() of others.
  void lock_names(std::size_t index, const BarrierNames& names) const;
  // How many disks of this host have slots in files that were removed from the folder: in former
  // ones of this path, or in those of a LUN with one of these names.
  [[nodiscard]] std::size_t holders_of_removed_files(const BarrierNames& names) const;

 private:
  struct Unmap {
    void operator()(barrier_layout::Contents* memory) const;
  };
  [[nodiscard]] static Result<BarrierFile> map(UniqueFd fd, const std::string& path);
  [[nodiscard]] static BarrierNames read_names(int fd, std::uint64_t names_used);
  bool set_lock(std::size_t index, short type) const;
  [[nodiscard]] std::set<off_t> first_locks_of(const BarrierNames& names) const;

  UniqueFd fd_;
  std::string path_;
  dev_t device_ = 0;
  off_t first_lock_ = 0;  // where the locked byte of slot 0 is
  std::unique_ptr<barrier_layout::Contents, Unmap> memory_;
};

// A text of the file, which ends at its NUL or with the field.
template <std::size_t kBytes>
[[nodiscard]] std::string_view text_of(const std::array<char, kBytes>& field) {
  const std::string_view whole(field.data(), field.size());
  return whole.substr(0, whole.find('\0'));
}
// Cut off where the field ends.
template <std::size_t kBytes>
void set_text(std::array<char, kBytes>& field, std::string_view text) {
  field.fill('\0');
  text.substr(0, kBytes - 1).copy(field.data(), kBytes - 1);
}

}  // namespace iscsi_blkback
