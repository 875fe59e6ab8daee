// Tolerated: the rules of RFC 7143 that a target may break without harm to data, because Linux's
// initiator goes on there, and targets exist that do. Each is said once for a session. What is not
// here ends the connection; see RepeatedEnds for what becomes of a target that goes on with it. Reactor thread.
#pragma once

#include <cstdint>
#include <string_view>

namespace iscsi_blkback {

enum class Tolerated : std::uint8_t {
  status_order,
  status_renumbered,
  long_r2t,
  many_r2ts,
  r2t_without_tag,
  r2t_for_sent_data,
  empty_data_in,
  data_in_flags,
  residual_both_ways,
  exp_data_sn,
  ping_answer,
  many_pings,
  ping_rejected,
  function_rejected,
  data_rejected,
  login,
};

// What the target does, and why it is harmless: goes behind the target's name.
[[nodiscard]] constexpr const char* to_string(Tolerated rule) {
  switch (rule) {
    case Tolerated::status_order:
      return "sends answers in another order than that of their StatSN; each is taken for the "
             "command "
             "that it names";
    case Tolerated::status_renumbered:
      return "leaves out StatSN; each answer is taken for the command that it names";
    case Tolerated::long_r2t:
      return "asks with an R2T for more data than MaxBurstLength allows; it gets them";
    case Tolerated::many_r2ts:
      return "has more R2Ts outstanding than MaxOutstandingR2T allows; they are answered in turn";
    case Tolerated::r2t_without_tag:
      return "sends R2Ts with a reserved transfer tag; they are answered with it";
    case Tolerated::r2t_for_sent_data:
      return "asks with an R2T for data that it was sent before; they are sent again";
    case Tolerated::empty_data_in:
      return "sends Data-Ins without data out of order; what counts is their status";
    case Tolerated::data_in_flags:
      return "sends Data-Ins with flags that contradict each other; what counts are the bytes that "
             "arrive";
    case Tolerated::residual_both_ways:
      return "answers with both residual overflow and underflow; such a command has failed";
    case Tolerated::exp_data_sn:
      return "counts more Data-Ins or R2Ts than it sends; what counts are the bytes";
    case Tolerated::ping_answer:
      return "answers NOP-Outs twice; that shows that it lives";
    case Tolerated::many_pings:
      return "sends more NOP-Ins at once than can be answered; the rest is left out";
    case Tolerated::ping_rejected:
      return "rejects NOP-Outs; that shows that it lives, too";
    case Tolerated::function_rejected:
      return "rejects task management functions; they count as refused";
    case Tolerated::data_rejected:
      return "has got damaged data (a wrong data digest); the command is sent again when it says "
             "so, "
             "but the network or a network card alters data";
    case Tolerated::login:
      return "does not keep to the rules of login negotiation: ";
  }
  return "breaks a rule";
}

// Those that a target has broken.
class ToleratedRules {
 public:
  using Tell = void (*)(void* owner, Tolerated rule, std::string_view details) noexcept;
  // tell: comes once for each rule.
  ToleratedRules(Tell tell, void* owner) : tell_(tell), owner_(owner) {}

  void note(Tolerated rule, std::string_view details = {}) {
    const std::uint32_t bit = 1U << static_cast<unsigned>(rule);
    if ((noted_ & bit) == 0) {
      noted_ |= bit;
      tell_(owner_, rule, details);
    }
  }

 private:
  const Tell tell_;
  void* const owner_;
  std::uint32_t noted_ = 0;  // a bit for each
};

}  // namespace iscsi_blkback
