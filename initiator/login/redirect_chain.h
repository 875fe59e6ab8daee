// RedirectChain: where the next login of a session goes. Its portal may have several addresses of
// one name: each has its turn when a login by the one before has failed, then comes the back-off. A
// target may redirect a login: a temporary redirect is for one login; where permanent ones lead is
// where logins begin from then on, until one fails there. Its Session or DiscoverySession owns it and
// logs in. Reactor thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/reactor.h"
#include "base/result.h"
#include "initiator/login/resolve.h"
#include "initiator/login/session_options.h"
#include "initiator/login/target_address.h"

namespace iscsi_blkback {

class RedirectChain {
 public:
  // After Next::looking_up, once and from the reactor: login_address() is known now, or why not
  // (unavailable, timed_out), as text that goes behind the name of who has redirected.
  using Found = void (*)(void* owner, const Result<void>& found) noexcept;
  // options: the addresses of the portal, and login_timeout, which a look-up has as well. on_behalf_of:
  // see NameResolver::look_up(). What is referred to outlives it.
  RedirectChain(Reactor& reactor, const SessionOptions& options, std::string on_behalf_of,
                NameResolver& resolver, Found found, void* owner);

  // All is forgotten: the next login goes to the portal's first address.
  void start();
  // What is being looked up is not wanted any more.
  void stop_looking_up();

  // Of the portal's addresses the one whose turn it is.
  [[nodiscard]] const SocketAddress& portal_address() const;
  // Where the login goes, or has gone.
  [[nodiscard]] const SocketAddress& login_address() const;

  // A login has ended with a redirect to address, as the target wrote it. Error: it cannot be
  // followed; its text goes behind the target's name.
  [[nodiscard]] Result<void> redirect(const std::string& address, bool permanently);
  [[nodiscard]] bool redirected() const { return redirected_; }
  // A login has failed. why: with what; when every address has had its turn, it becomes what all of
  // them have failed with. A connection that was up goes back to the address that it had.
  void failed(Error& why);
  // It has failed, but its address is all right.
  void failed_elsewhere() { another_address_ = false; }
  // The next login goes to another address than the one that has failed.
  [[nodiscard]] bool has_another_address() const { return another_address_; }
  void logged_in();

  enum class Next : std::uint8_t {
    at_once,
    after_back_off,
    looking_up,  // found() comes first
  };
  // When the next login begins; the connection of the last one is gone.
  [[nodiscard]] Next next();
  [[nodiscard]] bool looking_up() const { return lookup_ != nullptr; }

 private:
  [[nodiscard]] Next follow();
  void on_resolved(Result<std::vector<SocketAddress>> addresses);
  void give_up(Error why);
  void redirect_to(const SocketAddress& address);
  void forget_redirects();

  const SessionOptions& options_;
  const std::string on_behalf_of_;
  Reactor& reactor_;
  NameResolver& resolver_;
  const Found found_;
  void* const owner_;

  // Of the portal: 0, then other_addresses. tried: since the last success.
  std::size_t address_ = 0;
  std::size_t addresses_tried_ = 0;
  bool another_address_ = false;
  std::string address_trouble_;  // what the others have failed with

  bool redirected_ = false;  // the next login is a hop of the last one
  std::uint32_t hops_ = 0;
  TargetAddress target_;                        // of the last hop, as the target wrote it
  std::vector<SocketAddress> hop_addresses_;    // of it, those that have not had their turn
  std::optional<SocketAddress> redirected_to_;  // the last hop of this login
  bool all_hops_permanent_ = true;
  std::optional<SocketAddress> permanent_hop_;  // the last of the permanent hops it began with
  std::optional<SocketAddress> moved_to_;
  std::unique_ptr<NameLookup> lookup_;
  Timer lookup_timer_;  // login_timeout
};

}  // namespace iscsi_blkback
