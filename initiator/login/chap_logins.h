// ChapLogins: the logins of one session, one after the other, as far as CHAP decides about them:
// what the next one offers, and which of their failures is told. Its Session or DiscoverySession
// owns it; reactor thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "initiator/login/chap_ladder.h"
#include "initiator/login/login.h"

namespace iscsi_blkback {

class ChapLogins {
 public:
  // key: what is remembered is remembered by this. memory outlives the object.
  ChapLogins(ChapMemory& memory, std::string key) : memory_(memory), key_(std::move(key)) {}

  // Nothing has failed yet.
  void start();
  // What the next login offers; chap: check_chap_options() has accepted it.
  [[nodiscard]] std::vector<ChapAlgorithm> offer(const ChapOptions& chap, TimePoint now);
  void succeeded(const Login& login, TimePoint now);
  // why: of a login that failed; it gets what is known of CHAP, or becomes the failure that says
  // more, when no offer is left.
  [[nodiscard]] ChapNext failed(const Login& login, Error& why);
  [[nodiscard]] const std::string& key() const { return key_; }
  // Every offer has failed, at least once.
  [[nodiscard]] bool all_failed() const { return ladder_.all_failed(); }

 private:
  ChapMemory& memory_;
  const std::string key_;
  ChapLadder ladder_{{}};
  std::optional<Error> refusal_;  // the first of an answer of ours since the ladder began
};

}  // namespace iscsi_blkback
