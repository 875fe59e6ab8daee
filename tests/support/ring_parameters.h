// What a FakeFrontend that has its ring would write into xenstore, for whoever opens a VbdQueue without
// a handshake. Pure.
#pragma once

#include "blkback/ring/vbd_queue.h"
#include "tests/support/fake_frontend.h"

namespace iscsi_blkback {

[[nodiscard]] inline RingParameters ring_parameters(const FakeFrontend& frontend) {
  return {.domain = frontend.options().domain,
          .abi = frontend.options().abi,
          .ring_references = frontend.ring_references(),
          .event_port = frontend.event_port(),
          .start_index = frontend.options().start_index};
}

}  // namespace iscsi_blkback
