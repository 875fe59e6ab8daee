#include "blkback/own_domain.h"

#include <charconv>

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
    return DomainId{0};                // toolstacks may leave it out for dom0
  }
  DomainId domain = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), domain);
  if (text->empty() || error != std::errc{} || end != text->data() + text->size()) {
    return fail(ErrorCode::protocol, "xenstore's node domid is not a number");
  }
  return domain;
}

}  // namespace iscsi_blkback
