#include "initiator/scsi/lun_names.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>

#include "base/ascii_case.h"
#include "base/printable_text.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint8_t kBinary = 1;
constexpr std::uint8_t kAscii = 2;

constexpr std::uint8_t kVendorSpecific = 0;
constexpr std::uint8_t kT10VendorId = 1;
constexpr std::uint8_t kEui64 = 2;
constexpr std::uint8_t kNaa = 3;
constexpr std::uint8_t kMd5 = 7;
constexpr std::uint8_t kScsiName = 8;
constexpr std::uint8_t kUuid = 10;

constexpr std::size_t kVendorBytes = 8;

bool only(std::string_view text, std::string_view characters) {
  return text.find_first_not_of(characters) == std::string_view::npos;
}

std::string_view without_padding(std::string_view bytes) {
  return bytes.substr(0, bytes.find_last_not_of(std::string_view("\0 ", 2)) + 1);
}

std::string_view without_zeros_behind(std::string_view bytes) {
  return bytes.substr(0, bytes.find_last_not_of('\0') + 1);
}

std::string hex_of(std::string_view bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes.size());
  for (const char c : bytes) {
    text += kDigits[static_cast<unsigned char>(c) >> 4];
    text += kDigits[static_cast<unsigned char>(c) & 0xf];
  }
  return text;
}

bool is_number(std::uint8_t type) {
  return type == kEui64 || type == kNaa;
}

// The digits of an NAA or EUI-64. Some devices have them as text, which scsi_id knows too.
std::string digits_of(const Designator& designator) {
  const std::string_view text = without_padding(designator.bytes);
  if (designator.code_set == kAscii && (text.size() == 16 || text.size() == 32) &&
      only(text, "0123456789abcdefABCDEF")) {
    return lower(text);
  }
  return hex_of(designator.bytes);
}

// No bytes behind a NUL, where C's strings end.
bool is_text(std::string_view bytes) {
  return without_padding(bytes).find('\0') == std::string_view::npos;
}

// A blank at the end of what is called binary is a byte of it like any other.
bool ends_as_text(const Designator& designator) {
  return designator.code_set != kBinary || designator.type == kScsiName ||
         without_padding(designator.bytes) == without_zeros_behind(designator.bytes);
}

std::string text_of(const Designator& designator) {
  return printable_identity(without_padding(designator.bytes));
}

// Zeros and the like. Binary zeros, zeros as digits, ones, and blanks.
bool is_filler(std::string_view bytes) {
  bytes = without_padding(bytes);
  bytes.remove_prefix(std::min(bytes.find_first_not_of(' '), bytes.size()));
  return only(bytes, std::string_view("\0", 1)) || only(bytes, "0") || only(bytes, "\xff");
}

bool is_filler_number(std::string_view digits) {
  return only(digits, "0") || only(digits, "f");
}

// "naa.6000000000000000": the forms of a number, and such a number says no more as a name.
bool is_filler_name(std::string_view name) {
  const std::string text = lower(without_padding(name));
  const bool is_naa = text.starts_with("naa.");
  if (!is_naa && !text.starts_with("eui.")) {
    return is_filler(name);
  }
  const std::string_view digits = std::string_view(text).substr(4);
  return is_filler_number(digits.substr(is_naa && !digits.empty() ? 1 : 0));
}

// Two bytes that every UUID has before it (SPC-5 7.7.6.11).
bool is_filler_uuid(std::string_view bytes) {
  constexpr std::size_t kHeadBytes = 2;
  return is_filler(bytes) || is_filler(bytes.substr(std::min(bytes.size(), kHeadBytes)));
}

// Runs of blanks as one '_', none at the end. text: of printable_identity().
std::string joined_blanks(std::string_view text) {
  text = text.substr(0, text.find_last_not_of(' ') + 1);
  std::string out;
  bool blank = false;
  for (const char c : text) {
    if (c != ' ') {
      out += c;
    } else if (!blank) {
      out += '_';
    }
    blank = c == ' ';
  }
  return out;
}

std::string product_name(const LunNames& names) {
  const auto field = [](std::string_view bytes, std::size_t size) {
    std::string padded(bytes.substr(0, size));
    std::replace(padded.begin(), padded.end(), '\0', ' ');
    padded.resize(size, ' ');
    return printable_identity(padded);
  };
  return field(names.vendor, kVendorBytes) + field(names.product, 16);
}

// What stands behind the vendor in a T10 vendor id; all of it where the vendor is not there: tgt
// puts what its operator calls the LUN in the vendor's place.
std::string_view without_vendor(std::string_view bytes, const LunNames& names) {
  const bool has_vendor =
      without_padding(bytes.substr(0, kVendorBytes)) == without_padding(names.vendor);
  return has_vendor ? bytes.substr(std::min(kVendorBytes, bytes.size())) : bytes;
}

// It tells the LUN from another one, as far as it alone can.
bool says_something(const Designator& designator, const LunNames& names) {
  const std::string_view bytes = designator.bytes;
  switch (designator.type) {
    case kNaa: {
      const std::string digits = digits_of(designator);
      if (digits.empty()) {
        return false;
      }
      const bool right = digits[0] == '6' ? digits.size() == 32
                                          : digits.size() == 16 && only(digits.substr(0, 1), "235");
      return right && !is_filler_number(std::string_view(digits).substr(1));
    }
    case kEui64: {
      const std::string digits = digits_of(designator);
      return (digits.size() == 16 || digits.size() == 24 || digits.size() == 32) &&
             !is_filler_number(digits);
    }
    case kT10VendorId: {
      const std::string_view rest = without_vendor(bytes, names);
      return !is_filler(rest) && without_padding(rest) != without_padding(names.product) &&
             joined_blanks(text_of(designator)) != joined_blanks(product_name(names));
    }
    case kScsiName:
      return !is_filler_name(bytes);
    case kUuid:
      return !is_filler_uuid(bytes);
    case kVendorSpecific:
    case kMd5:
      return !is_filler(bytes);
    default:
      return false;
  }
}

// serial: of printable_identity(), which writes a byte of ones in four characters.
bool says_something(std::string_view serial) {
  constexpr std::string_view kOnes = "\\xff";
  std::string_view rest = serial;
  while (rest.starts_with(kOnes)) {
    rest.remove_prefix(kOnes.size());
  }
  return !only(serial, "0 ") && !(rest.empty() && !serial.empty());
}

// In the order of scsi_id: a lower one is better. SCSI names, which it does not know, are better
// than what is vendor-specific.
int rank_of(const Designator& designator) {
  switch (designator.type) {
    case kNaa:
      return digits_of(designator)[0] == '6' ? 0 : digits_of(designator)[0] == '5' ? 1 : 2;
    case kEui64:
      return 3;
    case kT10VendorId:
      return designator.code_set == kBinary ? 4 : 5;
    case kScsiName:
      return 6;
    default:
      return 7;
  }
}

bool is_shown(const Designator& designator) {
  return designator.type <= kNaa || designator.type == kScsiName;
}

// As hexadecimal digits where it is called binary, or is no text.
std::string shown(const Designator& designator, const LunNames& names) {
  if (is_number(designator.type)) {
    return fmt::format("{:x}{}", designator.type, digits_of(designator));
  }
  const bool as_text =
      is_text(designator.bytes) && (designator.code_set != kBinary || designator.type == kScsiName);
  const std::string product = designator.type == kVendorSpecific ? product_name(names) : "";
  return joined_blanks(fmt::format("{:x}{}{}", designator.type, product,
                                   as_text ? text_of(designator) : hex_of(designator.bytes)));
}

std::string serial_name(const LunNames& names) {
  return joined_blanks(fmt::format("S{}{}", product_name(names), names.serial));
}

template <class Rank>
const Designator* best_of(const LunNames& names, Rank rank) {
  const Designator* best = nullptr;
  for (const Designator& designator : names.designators) {
    if (is_shown(designator) && says_something(designator, names) &&
        (best == nullptr || rank(designator) < rank(*best))) {
      best = &designator;
    }
  }
  return best;
}

// scsi_id --replace-whitespace: whatever it does not want in a file's name becomes '_'. text: of
// printable_identity().
std::string as_file_name(std::string_view text) {
  std::string bytes;
  for (std::size_t at = 0; at < text.size(); ++at) {
    // A byte that is not printable, \xNN there.
    if (text[at] == '\\') {
      const bool blank = text.substr(at, 3) == "\\x0" && text[at + 3] >= '9' && text[at + 3] <= 'd';
      bytes += blank ? ' ' : '/';
      at += 3;
    } else {
      bytes += text[at];
    }
  }
  std::string out = joined_blanks(bytes);
  std::replace_if(
      out.begin(), out.end(),
      [](char c) {
        const bool letter =
            (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        return !letter && std::string_view("#+-.:=@_").find(c) == std::string_view::npos;
      },
      '_');
  return out;
}

bool is_text_form(std::string_view wwid, const std::string& name) {
  return joined_blanks(wwid) == joined_blanks(name) || wwid == as_file_name(name);
}

bool is_called(const Designator& designator, const LunNames& names, std::string_view wwid) {
  const std::string type = fmt::format("{:x}", designator.type);
  if (is_number(designator.type)) {
    return lower(wwid) == type + digits_of(designator);
  }
  const std::string name = designator.type == kVendorSpecific ? type + product_name(names) : type;
  return is_text_form(wwid, name + text_of(designator)) ||
         is_text_form(wwid, name + hex_of(designator.bytes)) ||
         lower(wwid) == lower(name + hex_of(designator.bytes));
}

// Two designators name the same thing in two ways, or one thing and another one.
struct Kind {
  std::uint8_t type = 0;
  char naa = '\0';
  std::size_t eui_digits = 0;

  bool operator==(const Kind&) const = default;
};

Kind kind_of(const Designator& designator) {
  Kind kind{.type = designator.type};
  if (designator.type == kNaa) {
    kind.naa = digits_of(designator)[0];
  } else if (designator.type == kEui64) {
    kind.eui_digits = digits_of(designator).size();
  }
  return kind;
}

bool is_local(const Kind& kind) {
  return kind.type == kVendorSpecific || (kind.type == kNaa && kind.naa == '3');
}

// Targets of one make that were set up alike have equal ones of the other kinds.
bool is_meant_to_be_unique(const Kind& kind) {
  return kind.type != kT10VendorId && !is_local(kind);
}

const char* name_of(std::uint8_t type) {
  switch (type) {
    case kVendorSpecific:
      return "vendor-specific designator";
    case kT10VendorId:
      return "T10 vendor identification";
    case kEui64:
      return "EUI-64";
    case kNaa:
      return "NAA designator";
    case kMd5:
      return "MD5 identifier";
    case kScsiName:
      return "SCSI name";
    default:
      return "UUID";
  }
}

// The bytes that count: a designator may be padded through one path and not through another.
std::string value_of(const Designator& designator) {
  return is_number(designator.type)
             ? digits_of(designator)
             : std::string(ends_as_text(designator) ? without_padding(designator.bytes)
                                                    : without_zeros_behind(designator.bytes));
}

// Of the designator's kind.
struct Matches {
  bool any = false;    // the list has some
  bool equal = false;  // and this one
};
Matches look_for(const Designator& wanted, std::span<const Designator> list) {
  Matches matches;
  for (const Designator& designator : list) {
    if (kind_of(designator) == kind_of(wanted)) {
      matches.any = true;
      matches.equal = matches.equal || value_of(designator) == value_of(wanted);
    }
  }
  return matches;
}

// Those that say something, each once. Bounded: a page has room for a thousand, and each is
// compared with each.
std::vector<Designator> telling(const LunNames& names) {
  std::vector<Designator> list;
  for (const Designator& designator : names.designators) {
    if (list.size() < kMostDesignators && says_something(designator, names) &&
        !look_for(designator, list).equal) {
      list.push_back(designator);
    }
  }
  return list;
}

// One of the kind that the other list has not.
const Designator* alone(const Kind& kind, std::span<const Designator> list,
                        std::span<const Designator> others) {
  const auto found = std::find_if(list.begin(), list.end(), [&](const Designator& designator) {
    return kind_of(designator) == kind && !look_for(designator, others).equal;
  });
  return found == list.end() ? nullptr : &*found;
}

std::string text_of_difference(std::string_view what, std::string_view path,
                               std::string_view disk) {
  return fmt::format("its {} is \"{}\", the disk's is \"{}\"", what, path, disk);
}

// The kinds that are local, or those that are not: one in which each has what the other has not.
std::optional<std::string> difference_of_kinds(bool local, const LunNames& disk,
                                               std::span<const Designator> disks,
                                               const LunNames& path,
                                               std::span<const Designator> paths) {
  for (const Designator& designator : disks) {
    const Kind kind = kind_of(designator);
    if (is_local(kind) != local) {
      continue;
    }
    const Designator* const of_disk = alone(kind, disks, paths);
    const Designator* const of_path = alone(kind, paths, disks);
    if (of_disk != nullptr && of_path != nullptr) {
      return text_of_difference(name_of(kind.type), shown(*of_path, path), shown(*of_disk, disk));
    }
  }
  return std::nullopt;
}

// NAA and EUI-64 of forms that the standard does not know, and yet not empty: nothing to be called
// by, but they tell one LUN from another where nothing else does.
std::vector<Designator> malformed(const LunNames& names) {
  std::vector<Designator> list;
  for (const Designator& designator : names.designators) {
    if (list.size() < kMostDesignators && is_number(designator.type) &&
        !is_filler(designator.bytes) && !says_something(designator, names) &&
        !is_filler_number(std::string_view(digits_of(designator)).substr(1))) {
      list.push_back(designator);
    }
  }
  return list;
}

std::optional<std::string> difference_of_malformed(const LunNames& disk, const LunNames& path) {
  const std::vector<Designator> disks = malformed(disk);
  const std::vector<Designator> paths = malformed(path);
  const auto alone = [](const std::vector<Designator>& list,
                        const std::vector<Designator>& others) {
    return std::find_if(list.begin(), list.end(), [&](const Designator& designator) {
      return std::find(others.begin(), others.end(), designator) == others.end();
    });
  };
  const auto of_disk = alone(disks, paths);
  const auto of_path = alone(paths, disks);
  if (of_disk == disks.end() || of_path == paths.end()) {
    return std::nullopt;
  }
  return text_of_difference(name_of(of_path->type), shown(*of_path, path), shown(*of_disk, disk));
}

// A company of zeros is what targets write that have none.
bool has_no_company(const Designator& designator) {
  return digits_of(designator).substr(1, 6) == "000000";
}

}  // namespace

bool is_local(const Designator& designator) {
  return is_local(kind_of(designator));
}

std::string wwid_of(const LunNames& names) {
  if (const Designator* const best = best_of(names, rank_of)) {
    return shown(*best, names);
  }
  return says_something(names.serial) ? serial_name(names) : "";
}

bool is_called(const LunNames& names, std::string_view wwid) {
  if (wwid.empty()) {
    return wwid_of(names).empty();
  }
  if (wwid.starts_with('S')) {
    return !names.serial.empty() && (is_text_form(wwid, "S" + names.serial) ||
                                     is_text_form(wwid, "S" + product_name(names) + names.serial));
  }
  return std::any_of(
      names.designators.begin(), names.designators.end(),
      [&](const Designator& designator) { return is_called(designator, names, wwid); });
}

std::string barrier_name_of(const LunNames& names) {
  const auto rank = [](const Designator& designator) {
    switch (designator.type) {
      case kNaa:
        return static_cast<int>(std::string_view("6523").find(digits_of(designator)[0]));
      case kEui64:
        return 4;
      case kScsiName:
        return 5;
      case kT10VendorId:
        return 6;
      default:
        return 7;
    }
  };
  const auto name = [](const Designator& designator) {
    return fmt::format("{:x}{}", designator.type,
                       is_number(designator.type) ? digits_of(designator)
                       : is_text(designator.bytes) && ends_as_text(designator)
                           ? text_of(designator)
                           : hex_of(designator.bytes));
  };
  const Designator* const best = best_of(names, rank);
  if (best == nullptr || best->type == kVendorSpecific) {
    return says_something(names.serial) ? "S" + names.serial : "";
  }
  if (best->type != kNaa || digits_of(*best)[0] != '6' || !has_no_company(*best)) {
    return name(*best);
  }
  // Made of another name, and maybe of a part of it only: then that one belongs to it.
  for (const Designator& designator : names.designators) {
    if (designator.type == kT10VendorId && says_something(designator, names)) {
      const auto rest = without_padding(without_vendor(designator.bytes, names));
      if (digits_of(*best).find(lower(rest)) == std::string::npos) {
        return fmt::format("{} {}", name(*best), name(designator));
      }
    }
  }
  return name(*best);
}

std::vector<LunNames> each_of(const LunNames& names) {
  std::vector<LunNames> list;
  for (const Designator& designator : telling(names)) {
    list.push_back({.designators = {designator}, .vendor = names.vendor, .product = names.product});
  }
  if (says_something(names.serial)) {
    list.push_back({.serial = names.serial, .vendor = names.vendor, .product = names.product});
  }
  return list;
}

void add_names(LunNames& names, const LunNames& told, SerialNumberIs serial) {
  for (const Designator& designator : telling(told)) {
    if (names.designators.size() < kMostDesignators &&
        !look_for(designator, names.designators).equal) {
      names.designators.push_back(designator);
    }
  }
  if (serial == SerialNumberIs::the_luns && !says_something(names.serial) &&
      says_something(told.serial)) {
    names.serial = told.serial;
  }
}

std::optional<std::string> difference(const LunNames& disk, const LunNames& path,
                                      SerialNumberIs serial) {
  const std::string disk_wwid = wwid_of(disk);
  const std::string path_wwid = wwid_of(path);
  const auto of_wwids = [&] { return text_of_difference("identity", path_wwid, disk_wwid); };
  const std::vector<Designator> disks = telling(disk);
  const std::vector<Designator> paths = telling(path);
  if (disks.empty() && paths.empty()) {
    return path_wwid == disk_wwid ? difference_of_malformed(disk, path) : std::optional(of_wwids());
  }
  bool common_kind = false;
  bool same = false;
  for (const Designator& designator : disks) {
    const Matches matches = look_for(designator, paths);
    common_kind = common_kind || matches.any;
    same = same || (matches.equal && is_meant_to_be_unique(kind_of(designator)));
  }
  std::optional<std::string> found = difference_of_kinds(false, disk, disks, path, paths);
  if (!found && !same) {
    found = difference_of_kinds(true, disk, disks, path, paths);
  }
  if (found || !common_kind) {
    return path_wwid == disk_wwid ? found : of_wwids();
  }
  if (serial == SerialNumberIs::the_luns && says_something(disk.serial) &&
      says_something(path.serial) && disk.serial != path.serial) {
    return text_of_difference("unit serial number", path.serial, disk.serial) +
           " (where it is the controller's, path_grouping_policy group_by_serial says so)";
  }
  return std::nullopt;
}

}  // namespace iscsi_blkback
