// StatusSequence: the StatSN of a connection's answers (RFC 7143 4.2.2.2), and the ExpStatSN that
// acknowledges them. Part of a Session; reactor thread.
//
// ExpStatSN is the first number that has not arrived, so that nothing is acknowledged that has not
// come. A number that is missing says nothing of a command: every answer names its command by its
// tag, TCP loses nothing, and an answer that is never sent leaves its command unanswered, which
// command_timeout notices. So a gap is no reason to drop a connection, at error recovery level 0
// neither: some targets number an answer before they send others that they number later (istgt),
// some leave numbers out. Linux takes each number as it comes.
#pragma once

#include <bitset>
#include <cstdint>

#include "initiator/pdu/pdu.h"

namespace iscsi_blkback {

class StatusSequence {
 public:
  enum class Arrival : std::uint8_t {
    in_order,
    early,       // others before it are missing
    late,        // fills a gap, or says nothing
    renumbered,  // too far ahead to wait for what is missing
  };

  // As many answers may arrive before one that has a lower number: more than there can be commands.
  static constexpr std::uint32_t kWindow = 8192;

  // The first number of a connection's full feature phase.
  void reset(std::uint32_t first) {
    arrived_.reset();
    expected_ = end_ = first;
  }

  Arrival take(std::uint32_t stat_sn) {
    if (stat_sn == expected_) [[likely]] {
      if (!has_gap()) [[likely]] {
        end_ = ++expected_;
        return Arrival::in_order;
      }
      ++expected_;
      pass_arrived();
      return Arrival::late;
    }
    if (serial_before(stat_sn, expected_)) {
      return Arrival::late;
    }
    if (stat_sn - expected_ >= kWindow) {
      reset(stat_sn + 1);
      return Arrival::renumbered;
    }
    const bool fills = serial_before(stat_sn, end_);
    arrived_.set(stat_sn % kWindow);
    if (!fills) {
      end_ = stat_sn + 1;
    }
    return fills ? Arrival::late : Arrival::early;
  }

  // Nothing that could still be answered with one of the missing numbers is outstanding.
  void pass_gaps() { reset(end_); }

  [[nodiscard]] bool has_gap() const { return expected_ != end_; }
  [[nodiscard]] std::uint32_t expected() const { return expected_; }

 private:
  void pass_arrived() {
    while (expected_ != end_ && arrived_.test(expected_ % kWindow)) {
      arrived_.reset(expected_ % kWindow);
      ++expected_;
    }
  }

  std::bitset<kWindow> arrived_;  // those of [expected_, end_) that have
  std::uint32_t expected_ = 0;
  std::uint32_t end_ = 0;  // behind the highest that has arrived
};

}  // namespace iscsi_blkback
