#include "blkback/guest_life.h"

#include <fmt/format.h>

namespace iscsi_blkback {

Result<GuestLife> look_at_guest(DomainInfo* domains, XenStore& store, DomainId guest) {
  GuestLife life;
  if (domains == nullptr) {
    const auto nodes = store.list(fmt::format("/local/domain/{}", guest));
    life.runs = nodes || nodes.error().code != ErrorCode::not_found;
    return life;
  }
  const auto status = domains->status(guest);
  if (!status) {
    return tl::unexpected(status.error());
  }
  switch (status->life) {
    case DomainLife::running:
      break;
    case DomainLife::shut_down:
      life.suspended = status->shutdown_reason == ShutdownReason::suspend;
      life.runs = life.suspended || status->shutdown_reason == ShutdownReason::soft_reset;
      break;
    case DomainLife::dying:
    case DomainLife::gone:
      life.runs = false;
      break;
  }
  return life;
}

}  // namespace iscsi_blkback
