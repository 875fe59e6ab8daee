#include "blkback/ring/flush_retries.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace iscsi_blkback {
namespace {

// Between the tries: doubling. The device has a budget of its own for what passes quickly.
constexpr Duration kFirstDelay = std::chrono::milliseconds(100);
constexpr Duration kLongestDelay = std::chrono::seconds(2);

}  // namespace

FlushRetries::FlushRetries(Reactor& reactor, BlockDevice& device, const std::string& name,
                           LogLimiter& log, std::uint64_t& retries)
    : reactor_(reactor),
      device_(device),
      name_(name),
      log_(log),
      retries_(retries),
      timer_(
          reactor, [](void* self) noexcept { static_cast<FlushRetries*>(self)->retry(); }, this) {}

std::optional<Error> FlushRetries::failed(VbdRequest& flush, IoStatus status) noexcept {
  const bool first = !std::exchange(flush.held, true) && held_++ == 0;
  waiting_.push_back(flush);
  if (status == IoStatus::not_supported) {
    return Error{
        ErrorCode::unsupported,
        "the LUN has a volatile write cache, or does not tell that it has none, and refuses "
        "SYNCHRONIZE CACHE: nothing that the guest flushes would be safe, so its disk is not "
        "served any more; switch the LUN's write cache off, then restart the guest"};
  }
  if (status == IoStatus::write_protected) {
    return Error{
        ErrorCode::io,
        "the LUN is write-protected now and refuses SYNCHRONIZE CACHE: what the guest has "
        "written may be in the LUN's volatile write cache only, so its disk is not served any "
        "more; end the write protection at the array, then restart the guest"};
  }
  if (status == IoStatus::medium_error) {
    return Error{
        ErrorCode::io,
        "the target has lost data that it had acknowledged: its cache could not be written. "
        "The guest's disk is not served any more; check the array, then restart the guest, "
        "whose file systems have to be checked"};
  }
  if (first) {
    delay_ = kFirstDelay;
    log_limited(log_, reactor_.now(), LogLevel::error, "vbd",
                "{}: a flush failed: {}; it is tried again until it succeeds, for the guest would "
                "take an error for success",
                name_, to_string(status));
  }
  if (!timer_.armed()) {
    timer_.start_after(delay_);
    delay_ = std::min(2 * delay_, kLongestDelay);
  }
  return std::nullopt;
}

void FlushRetries::succeeded(VbdRequest& flush) noexcept {
  if (std::exchange(flush.held, false) && --held_ == 0) {
    log_limited(log_, reactor_.now(), LogLevel::info, "vbd", "{}: flushes succeed again", name_);
  }
}

void FlushRetries::retry() noexcept {
  VbdRequestList again;
  again.take_all(waiting_);
  while (VbdRequest* flush = again.pop_front()) {
    ++retries_;
    device_.submit(*flush);
  }
}

void FlushRetries::take_all(VbdRequestList& unanswered) noexcept {
  timer_.stop();
  while (VbdRequest* flush = waiting_.pop_front()) {
    flush->held = false;
    --held_;
    flush->unanswered = true;
    unanswered.push_back(*flush);
  }
}

}  // namespace iscsi_blkback
