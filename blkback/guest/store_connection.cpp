#include "blkback/guest/store_connection.h"

#include <algorithm>
#include <utility>

#include "blkback/guest/log_limits.h"

namespace iscsi_blkback {

StoreConnection::StoreConnection(Reactor& control, Factory open_store, const char* log,
                                 LogLimiter& all_log, Client& client)
    : control_(control),
      open_store_(std::move(open_store)),
      log_(log),
      lost_log_(kMessageLimit, all_log),
      client_(client),
      reopen_timer_(
          control, [](void* self) noexcept { static_cast<StoreConnection*>(self)->reopen(); },
          this) {}

Result<void> StoreConnection::open() {
  auto store = open_store_();
  if (!store) {
    return tl::unexpected(store.error());
  }
  store_ = std::move(*store);
  if (auto opened = client_.on_store_open(*store_); !opened) {
    store_.reset();
    return opened;
  }
  watch_ = control_.watch_readable(
      store_->fd(), [](void* self) noexcept { static_cast<StoreConnection*>(self)->take_events(); },
      this);
  opened_ = control_.now();
  return {};
}

void StoreConnection::stop() {
  stopping_ = true;
  reopen_timer_.stop();
}

void StoreConnection::reopen() {
  if (auto opened = open(); !opened) {
    log_limited(lost_log_, control_.now(), LogLevel::warning, log_,
                "xenstore cannot be reached: {}", opened.error().message);
    reopen_timer_.start_after(reopen_delay_);
    reopen_delay_ = std::min(reopen_delay_ * 2, kReopenMax);
    return;
  }
  log_limited(lost_log_, control_.now(), LogLevel::info, log_, "xenstore is reached again");
}

void StoreConnection::lose(const Error& why) {
  watch_.reset();
  if (stopping_) {
    return;
  }
  log_limited(lost_log_, control_.now(), LogLevel::warning, log_,
              "the connection to xenstore is lost, disks go on being served: {}", why.message);
  store_.reset();
  if (control_.now() - opened_ >= kStableAfter) {
    reopen_delay_ = kReopenMin;
  }
  reopen_timer_.start_after(reopen_delay_);
  reopen_delay_ = std::min(reopen_delay_ * 2, kReopenMax);
  client_.on_store_lost();
}

void StoreConnection::take_events() {
  for (std::size_t count = 0; count < kMaxEventsPerTurn; ++count) {
    auto event = store_->next_event();
    if (!event) {
      lose(event.error());
      return;
    }
    if (!*event) {
      return;
    }
    client_.on_store_event(**event);
  }
}

}  // namespace iscsi_blkback
