#include "tests/support/faulty_disk.h"

namespace iscsi_blkback {

FaultyDisk::FaultyDisk(Reactor& reactor, BlockDevice& below) : reactor_(reactor), below_(below) {}

FaultyDisk::~FaultyDisk() {
  ISCSI_BLKBACK_ASSERT(held_.empty());
}

void FaultyDisk::submit(BlockRequest& request) noexcept {
  const Action action = plan_ ? plan_(request, number_++) : Action{};
  switch (action.kind) {
    case Action::Kind::pass:
      below_.submit(request);
      break;
    case Action::Kind::fail:
      reactor_.post([&request, status = action.status] { request.on_complete(request, status); });
      break;
    case Action::Kind::hold:
      held_.push_back(request);
      ++held_count_;
      break;
  }
}

void FaultyDisk::release(std::size_t count) {
  for (; count > 0 && !held_.empty(); --count) {
    --held_count_;
    below_.submit(*held_.pop_front());
  }
}

void FaultyDisk::fail_held(IoStatus status) {
  held_.for_each([&](BlockRequest& request) {
    request.unlink();
    --held_count_;
    reactor_.post([&request, status] { request.on_complete(request, status); });
  });
}

}  // namespace iscsi_blkback
