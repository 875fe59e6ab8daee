// LoginPhase: the logins of a session one after the other, each from the attempt to connect to the
// full feature phase: its requests, its limits of time, and what CHAP has come to. Login has the
// protocol; the Session, which owns this, has the connection. Reactor thread.
//
// The attempt to connect has connect_timeout, and with the login login_timeout. A login that was
// given up because it took too long has twice the time at the next try, and again: a target that
// needs a little longer would never be logged in to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/reactor.h"
#include "initiator/login/chap_logins.h"
#include "initiator/login/login.h"
#include "initiator/login/session_options.h"

namespace iscsi_blkback {

class LoginPhase {
 public:
  using Overdue = void (*)(void* owner) noexcept;
  // overdue: the connection or the answer to a request has not come in time. What is referred to
  // outlives it.
  LoginPhase(Reactor& reactor, const SessionOptions& options, ChapMemory& chap_memory,
             Overdue overdue, void* owner);

  // Nothing has failed yet.
  void start();
  // A login begins with an attempt to connect.
  void connecting();
  // That has succeeded. cmd_sn: of the requests. Error: no login can be made with these options.
  [[nodiscard]] Result<void> connected(std::uint32_t cmd_sn);
  // Until the next one.
  [[nodiscard]] std::span<std::byte> next_request();
  // A request is to be sent, once the one before has left.
  void send_later() { request_due_ = true; }
  [[nodiscard]] bool take_due() { return std::exchange(request_due_, false); }
  [[nodiscard]] Result<Login::Progress> receive(BhsBytes header, std::span<const std::byte> data) {
    return login_->receive(header, data);
  }
  [[nodiscard]] const Login& login() const { return *login_; }  // connected() and not yet ended

  // The full feature phase has been reached.
  void succeeded();
  // why: gets what is known of CHAP, or becomes the failure that says more.
  void failed(Error& why);
  // The next login offers another CHAP algorithm than the one that has failed, so that this is no
  // trouble yet.
  [[nodiscard]] bool has_another_offer() const { return chap_next_ == ChapNext::next; }
  [[nodiscard]] bool take_another_offer() {
    return std::exchange(chap_next_, ChapNext::same) == ChapNext::next;
  }
  // Every offer has failed, at least once.
  [[nodiscard]] bool every_offer_failed() const { return chap_logins_.all_failed(); }

  // The connection is about to end, and is gone.
  void stop_waiting() { timer_.stop(); }
  void forget_connection();

 private:
  void on_timer();

  static constexpr std::uint32_t kMostSlowLogins = 2;

  Reactor& reactor_;
  const SessionOptions& options_;
  const Overdue overdue_;
  void* const owner_;
  ChapLogins chap_logins_;
  ChapNext chap_next_ = ChapNext::same;  // what the last failure has led to
  std::optional<Login> login_;
  std::vector<std::byte> request_;
  bool request_due_ = false;
  Timer timer_;
  TimePoint since_{};
  std::uint32_t slow_logins_ = 0;  // in a row
};

}  // namespace iscsi_blkback
