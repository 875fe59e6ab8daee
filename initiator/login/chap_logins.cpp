#include "initiator/login/chap_logins.h"

#include <fmt/format.h>

#include <utility>

namespace iscsi_blkback {

void ChapLogins::start() {
  ladder_ = ChapLadder{{}};
}

std::vector<ChapAlgorithm> ChapLogins::offer(const ChapOptions& chap, TimePoint now) {
  if (!ladder_.climbing()) {
    ladder_ = ChapLadder(usable_chap_algorithms(chap));
    refusal_.reset();
    if (const auto rung = memory_.recall(key_, now)) {
      ladder_.begin_at(*rung);
    }
  }
  return ladder_.offer();
}

void ChapLogins::succeeded(const Login& login, TimePoint now) {
  if (login.used_chap()) {
    memory_.remember(key_, ladder_.succeeded(), now);
  }
}

// Of a ladder that has come to its end, why the target refused an answer says more than why it
// wanted none of the rest; that it refused us says most.
ChapNext ChapLogins::failed(const Login& login, Error& why) {
  if (!login.in_chap()) {
    return ChapNext::same;
  }
  why.message += fmt::format(" ({})", login.describe_chap(why));
  const auto chosen = login.chap_algorithm();
  const ChapNext next =
      ladder_.failed(login.refused() ? ChapFailure::refused : ChapFailure::lost, chosen);
  if (login.refused() && chosen &&
      (!refusal_ || (refusal_->code != ErrorCode::permission_denied &&
                     why.code == ErrorCode::permission_denied))) {
    refusal_ = why;
  }
  if (next == ChapNext::first_again && refusal_) {
    why = *std::exchange(refusal_, std::nullopt);
  }
  return next;
}

}  // namespace iscsi_blkback
