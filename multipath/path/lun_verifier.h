// LunVerifier: asks the LUN behind a path who it is, how well it is served there and how large it
// is, and how long an answer is waited for. What an answer means for the path, Path decides. Owned
// by Path. Reactor thread.
//
// A LUN that answers is waited for, however slow it is. One that does not is given up after
// checker_timeout, or is asked without the question that it does not answer. Questions that are
// never answered take room in the session's command window, which other disks may share: with
// kMostUnanswered of them the session is given up when the LUN does not say who it is; how it is
// served is not asked any more with half of them. Where command_timeout aborts them there are
// fewer.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/reactor.h"
#include "initiator/lun/logical_unit.h"
#include "initiator/session/session.h"

namespace iscsi_blkback {

class LunVerifier {
 public:
  // Whether it is the disk's LUN that answers here.
  enum class Identity : std::uint8_t {
    known,     // it is, and nothing has said since it was asked that it may be another one
    in_doubt,  // it is just being asked
    unknown,   // it may be another one, or is
  };

  class Owner {
   public:
    // identity() has been decided anew.
    virtual void on_identity() noexcept = 0;
    // How identify() ended, unless it is cancelled or not answered.
    virtual void on_identified(Result<LogicalUnitIdentity> identity) = 0;
    // identify() is given up. silent: because an answer does not come; else it takes too long in
    // all.
    virtual void on_unanswered(std::string why, bool silent) = 0;
    // How read_access() ended, unless it is cancelled.
    virtual void on_access(Result<LogicalUnitIdentity> identity) = 0;
    // How ask_for_capacity() ended. changed: it is not what the identification has told.
    virtual void on_capacity(bool changed) = 0;

   protected:
    ~Owner() = default;
  };

  LunVerifier(Reactor& reactor, LogicalUnit& logical_unit, std::chrono::milliseconds answer_time,
              Owner& owner);
  LunVerifier(const LunVerifier&) = delete;
  LunVerifier& operator=(const LunVerifier&) = delete;

  // Session logged in. Begins anew where it is just being asked; false: that is so. Until it is
  // decided the identity is in doubt.
  bool identify();
  // Not while identifying(). serves: commands for the medium have just succeeded.
  void read_access(bool serves);
  // Not while asking_for_capacity(); the LUN has been identified.
  void ask_for_capacity();
  // Nobody waits for an identification or for the access any more. What was in doubt is unknown.
  void cancel();
  // identity: as the owner has found what was told.
  void set_identity(Identity identity);
  // What is asked just now has to be asked from the start.
  void start_over() { logical_unit_.start_over(); }

  [[nodiscard]] Identity identity() const { return identity_; }
  [[nodiscard]] bool identifying() const { return identifying_; }
  // When the last identification began: what it has found was read since.
  [[nodiscard]] TimePoint identifying_since() const { return identifying_since_; }
  [[nodiscard]] bool reading_access() const { return reading_access_; }
  [[nodiscard]] bool asking_for_capacity() const { return capacity_outstanding_; }
  // As the identification has told it; 0: it has not.
  [[nodiscard]] std::uint64_t block_count() const { return block_count_; }

 private:
  void on_identified(Result<LogicalUnitIdentity> identity);
  void on_access(Result<LogicalUnitIdentity> identity);
  void on_capacity();
  void on_question_timer();
  [[nodiscard]] Duration patience() const { return logical_unit_.patience(answer_time_); }

  Reactor& reactor_;
  LogicalUnit& logical_unit_;
  const std::chrono::milliseconds answer_time_;
  Owner& owner_;
  Identity identity_ = Identity::unknown;
  bool identifying_ = false;
  TimePoint identifying_since_{};
  bool reading_access_ = false;
  // Of an identification, or of a reading of the access: deadline of its next answer, and of the
  // whole.
  Timer question_timer_;
  TimePoint question_since_{};
  std::uint64_t block_count_ = 0;
  std::uint32_t block_bytes_ = 0;
  ScsiTask capacity_task_;
  std::array<std::byte, LogicalUnit::kCapacityBytes> capacity_buffer_{};
  bool capacity_outstanding_ = false;
};

}  // namespace iscsi_blkback
