#include "multipath/fencing/barrier_names.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace iscsi_blkback {
namespace {

// IEEE company ids are in the identities that are unlike all others in the world: NAA 2, 5 and 6,
// and EUI-64 (SPC-4 7.8.6.5 and 7.8.6.6). A company of zeros is what targets write that have none.
bool has_company(std::string_view hex, std::size_t company_at) {
  const std::string_view company = hex.substr(std::min(hex.size(), company_at), 6);
  return company.size() == 6 && company.find_first_not_of('0') != std::string_view::npos;
}

// As if the product of `disk` had told all of them, which says what is filler.
LunNames of_product(LunNames name, const BarrierNames& disk) {
  if (!disk.known.empty()) {
    name.vendor = disk.known.front().name.vendor;
    name.product = disk.known.front().name.product;
  }
  return name;
}

// All as those of one LUN, of the product of `disk`. Where several serial numbers were told, that
// of `disk`, if it is one of them.
LunNames joined(const BarrierNames& names, const BarrierNames& disk) {
  LunNames all = of_product({}, disk);
  const auto is_of_disk = [&](const std::string& serial) {
    return std::any_of(disk.known.begin(), disk.known.end(),
                       [&](const BarrierName& known) { return known.name.serial == serial; });
  };
  for (const BarrierName& known : names.known) {
    all.designators.insert(all.designators.end(), known.name.designators.begin(),
                           known.name.designators.end());
    const std::string& serial = known.name.serial;
    if (!serial.empty() && (all.serial.empty() || is_of_disk(serial))) {
      all.serial = serial;
    }
  }
  return all;
}

}  // namespace

// name: of barrier_name_of(), a digit for the type and the designator.
bool is_unique_in_the_world(std::string_view name) {
  if (name.size() < 2) {
    return false;
  }
  const std::string_view designator = name.substr(1);
  switch (name[0]) {
    case '3':
      switch (designator[0]) {
        case '2':
          return has_company(designator, 4);
        case '5':
        case '6':
          return has_company(designator, 1);
        default:
          return false;  // locally assigned
      }
    case '2':
      return has_company(designator, 0);
    case '8':
      return true;  // a SCSI name string: eui., naa. or iqn.
    default:
      return false;
  }
}

std::string lun_barrier_key(const std::string& name, const std::string& target_name,
                            std::uint16_t lun) {
  if (name.empty()) {
    return fmt::format("lun {} of {}", lun, target_name);
  }
  return is_unique_in_the_world(name) ? name : fmt::format("{} of {}", name, target_name);
}

bool share_a_unique_name(const LunNames& one, const LunNames& other) {
  const std::vector<LunNames> others = each_of(other);
  const std::vector<LunNames> ones = each_of(one);
  return std::any_of(ones.begin(), ones.end(), [&](const LunNames& single) {
    const std::string name = barrier_name_of(single);
    return is_unique_in_the_world(name) &&
           std::any_of(others.begin(), others.end(), [&](const LunNames& candidate) {
             return barrier_name_of(candidate) == name;
           });
  });
}

std::string BarrierName::key() const {
  const std::string text = barrier_name_of(name);
  return text.empty() ? "" : lun_barrier_key(text, target_name, 0);
}

bool BarrierNames::add(const BarrierName& name) {
  const bool is_known = std::any_of(known.begin(), known.end(), [&](const BarrierName& other) {
    return other.name.designators == name.name.designators &&
           other.name.serial == name.name.serial &&
           (other.target_name == name.target_name || other.key() == name.key());
  });
  if (is_known || known.size() >= kMost) {
    return false;
  }
  known.push_back(name);
  return true;
}

bool BarrierNames::add(const LunNames& told, const std::string& target_name) {
  bool added = false;
  for (LunNames& single : each_of(told)) {
    // A serial number of the path's says nothing of the LUN.
    if (serial == SerialNumberIs::the_luns || single.serial.empty()) {
      added = add({std::move(single), target_name}) || added;
    }
  }
  return added;
}

bool BarrierNames::add(const BarrierNames& others) {
  bool added = false;
  for (const BarrierName& name : others.known) {
    added = add(name) || added;
  }
  return added;
}

bool is_same_lun(const BarrierNames& disk, const BarrierNames& other) {
  std::set<std::string> keys;
  for (const BarrierName& name : disk.known) {
    keys.insert(name.key());
  }
  keys.erase("");
  const bool share = std::any_of(other.known.begin(), other.known.end(), [&](const auto& name) {
    return keys.count(BarrierName{of_product(name.name, disk), name.target_name}.key()) != 0;
  });
  return share && !difference(joined(disk, disk), joined(other, disk), disk.serial);
}

}  // namespace iscsi_blkback
