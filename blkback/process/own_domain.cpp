#include "blkback/process/own_domain.h"

#include <fstream>
#include <string>

#include "base/decimal.h"
#include "blkback/xen/xenstore.h"

namespace iscsi_blkback {
namespace {

// False: the kernel says that this is another domain. Where it says nothing, it may be dom0.
bool may_be_dom0() {
  std::ifstream file("/proc/xen/capabilities");
  std::string capabilities;
  std::getline(file, capabilities);  // another domain has none
  return !file.is_open() || capabilities.find("control_d") != std::string::npos;
}

}  // namespace

Result<DomainId> read_own_domain() {
  auto store = open_xenstore();
  if (!store) {
    return tl::unexpected(store.error());
  }
  auto text = (*store)->read("domid");
  if (!text) {
    if (text.error().code != ErrorCode::not_found) {
      return tl::unexpected(text.error());
    }
    if (!may_be_dom0()) {
      return fail(ErrorCode::unavailable, "xenstore does not say yet which domain this is");
    }
    return DomainId{0};  // toolstacks may leave it out for dom0
  }
  const auto domain = parse_decimal<DomainId>(*text);
  if (!domain) {
    return fail(ErrorCode::protocol, "xenstore's node domid is not a number");
  }
  return *domain;
}

}  // namespace iscsi_blkback
