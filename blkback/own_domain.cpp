#include "blkback/own_domain.h"

#include "base/decimal.h"
#include "blkback/xen/xenstore.h"

namespace iscsi_blkback {

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
    return DomainId{0};  // toolstacks may leave it out for dom0
  }
  const auto domain = parse_decimal<DomainId>(*text);
  if (!domain) {
    return fail(ErrorCode::protocol, "xenstore's node domid is not a number");
  }
  return *domain;
}

}  // namespace iscsi_blkback
