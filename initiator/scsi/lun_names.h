// LunNames: what a logical unit calls itself: the designators of its vital product data (VPD) page
// 0x83, its serial number of page 0x80, and the product's name, which some forms begin with.
// Whether two paths lead to one logical unit, and whether it is the one that an operator means.
// Pure functions.
//
// One name is not enough. Targets make designators out of less than they are given (tgt reads what
// it is called as hexadecimal digits, and takes everything else for 0), share them among the LUNs
// of a box, or leave them empty. So all that both paths have is compared.
//
// Sources: SPC-4 7.8 (vital product data; page 0x83 is 7.8.6); for the form that is shown,
// systemd's scsi_id.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace iscsi_blkback {

// One of page 0x83, of the logical unit: what names a target port or the target is none.
struct Designator {
  std::uint8_t code_set = 0;  // 1: binary, 2: ASCII, 3: UTF-8
  std::uint8_t type = 0;  // 0: vendor-specific, 1: T10 vendor id, 2: EUI-64, 3: NAA, 8: SCSI name
  std::string bytes;      // as they came

  bool operator==(const Designator&) const = default;
};

struct LunNames {
  std::vector<Designator> designators = {};  // in the order of the page
  std::string serial = {};                   // as printable_identity() has it; empty: none
  std::string vendor = {};                   // of the standard INQUIRY data, 8 bytes as they came
  std::string product = {};                  // 16 bytes

  bool operator==(const LunNames&) const = default;
};

// The name that is shown, as `scsi_id --whitelisted --replace-whitespace` prints it: a digit for
// the designator's type and the designator (hexadecimal where it is binary, else as text, of which
// blanks become one '_'), or, without any, 'S', vendor, product and serial number. Other than
// scsi_id's: a designator that says nothing, because it is all zeros, blanks or the vendor's name,
// is passed over; what is not printable is \xNN; and a SCSI name is taken where there is no better
// one. Empty: the LUN says nothing of itself.
[[nodiscard]] std::string wwid_of(const LunNames& names);

// Whether the LUN is meant by a wwid that somebody has written (parse_wwid()): one of its names, in
// the form of wwid_of(), of scsi_id with or without --replace-whitespace, or with its blanks.
// Empty: a LUN that says nothing of itself.
[[nodiscard]] bool is_called(const LunNames& names, std::string_view wwid);

// What lun_barrier_key() names the LUN by. Processes of all versions on this host must find the
// same one: it is the wwid of the first versions (a SCSI name before a T10 vendor id, text with its
// blanks, 'S' and the serial number) wherever that named the LUN and no other.
[[nodiscard]] std::string barrier_name_of(const LunNames& names);

// Of page 0x80. Some targets have a number of the controller's there, which differs from path to
// path of one LUN; only the operator can say so (path_grouping_policy group_by_serial).
enum class SerialNumberIs : std::uint8_t { the_luns, the_paths };

// Each name that says something, alone (and the product's, which belongs to it), in the order of
// the page; the serial number last.
[[nodiscard]] std::vector<LunNames> each_of(const LunNames& names);

// Whether each target, and each of its ports, may have its own of this kind for one LUN.
[[nodiscard]] bool is_local(const Designator& designator);

// A LUN has so many designators that say something at most; further ones count for nothing.
inline constexpr std::size_t kMostDesignators = 32;
// What `told` has and `names` has not comes to these: both are the same LUN's. A serial number only
// where there was none, and it is the LUN's.
void add_names(LunNames& names, const LunNames& told, SerialNumberIs serial);

// What tells that the LUN of `path` is another one than that of `disk`: a sentence's end, "its T10
// vendor identification is "beef-h", the disk's is "beef-g"". nullopt: nothing, and what both have
// is enough to say that it is the same; or neither has any name at all, nor each an identifier of
// no known form that the other has not. They are other LUNs when of a kind that both have each has
// one that the other has not, and when they have no kind in common. What a target may have several
// of for one LUN (vendor-specific ones, and NAA 3, locally assigned) counts as long as no other
// NAA, EUI-64 or SCSI name is equal.
[[nodiscard]] std::optional<std::string> difference(const LunNames& disk, const LunNames& path,
                                                    SerialNumberIs serial);

}  // namespace iscsi_blkback
