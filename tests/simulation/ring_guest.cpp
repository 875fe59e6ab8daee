#include "tests/simulation/ring_guest.h"

#include <cstring>
#include <utility>

#include "tests/support/ring_parameters.h"

namespace iscsi_blkback {

RingGuest::RingGuest(SimReactor& reactor, BlockDevice& device, std::uint32_t start_index)
    : device_(device) {
  FakeFrontend::Options options;
  options.start_index = start_index;
  grants_ = xen_.grants().open(options.backend);
  channels_ = xen_.events().open(options.backend);
  events_.emplace(reactor, *channels_);
  turn_.emplace(reactor, *grants_);
  frontend_.emplace(xen_, options);
  frontend_->set_up_ring();
  frontend_->on_completion(
      [this](const FakeFrontend::Completion& completion) { on_completion(completion); });
  bell_ = reactor.watch_readable(
      frontend_->event_fd(),
      [](void* owner) noexcept { static_cast<RingGuest*>(owner)->frontend_->poll(); }, this);
  auto opened = VbdQueue::open(reactor, *turn_, *events_, device_, ring_parameters(*frontend_),
                               {.name = "simulated", .discards = true}, *this);
  ISCSI_BLKBACK_ASSERT(opened.has_value());
  vbd_ = std::move(*opened);
}

RingGuest::~RingGuest() {
  ISCSI_BLKBACK_ASSERT(closed());
  bell_.reset();
  frontend_->tear_down_ring();
}

void RingGuest::submit(BlockRequest& request) noexcept {
  const auto tag = reinterpret_cast<std::uint64_t>(&request);
  std::optional<FakeFrontend::RequestId> id;
  switch (request.operation) {
    case BlockOperation::read:
      id = frontend_->read(request.sector, request.sector_count, tag);
      break;
    case BlockOperation::write:
      id = frontend_->write(request.sector, {request.data, request.length_bytes()}, tag);
      break;
    case BlockOperation::flush:
      id = frontend_->flush(tag);
      break;
    case BlockOperation::discard:
      id = frontend_->discard(request.sector, request.sector_count, tag);
      break;
  }
  ISCSI_BLKBACK_ASSERT(id.has_value() && "the ring has room for all that a simulated guest does");
  frontend_->push();
}

void RingGuest::on_completion(const FakeFrontend::Completion& completion) {
  BlockRequest& request = *reinterpret_cast<BlockRequest*>(completion.tag);
  const bool ok = completion.status == kBlkifOkay;
  if (ok && request.operation == BlockOperation::read) {
    std::memcpy(request.data, completion.data.data(), request.length_bytes());
  }
  request.on_complete(request, ok ? IoStatus::ok : IoStatus::target_error);
}

void RingGuest::on_queue_broken(VbdQueue& /*queue*/, const Error& error) noexcept {
  violations_.push_back("the backend gave the ring up: " + error.message);
}

void RingGuest::close() {
  vbd_->close([](void* owner) noexcept { static_cast<RingGuest*>(owner)->vbd_.reset(); }, this);
}

std::vector<std::string> RingGuest::take_violations() {
  std::vector<std::string> violations = std::exchange(violations_, {});
  for (std::string& violation : xen_.faults().take_violations()) {
    violations.push_back(std::move(violation));
  }
  return violations;
}

}  // namespace iscsi_blkback
