// LunFence: fences lost writes by a command of the logical unit itself, through a path that works,
// one at a time. For what the next login of the lost session, or of a fence session through a
// sibling portal (NexusFencer), does not reach: those act within one portal group only. It decides
// when; by which path, and what that reaches, is LunCommand's. Owned by WriteFence. Reactor thread.
//
//   LOGICAL UNIT RESET  (SAM-5 6.3.3 and 7.7, RFC 7143 11.5.1) where the LUN is exclusive and no
//                       other disk at it says otherwise (Session::may_reset). It ends the commands
//                       of every nexus, so our own may finish first, and new requests wait meanwhile:
//                       kDrainTime and kResetPause at most, see below. No other host may use the LUN:
//                       at the source of a migration another one does, so a suspended disk sends none.
//   PREEMPT AND ABORT   (SPC-4 5.13) where paths have registered keys: ends the commands of the
//                       nexus whose key it names, and of no other.
//
// Why not at once. Both end what the device server has received. Bytes of the lost connection that
// are still in the network, or in a socket that a stalled target port has not read yet, become
// commands after that, and RFC 7143 knows no time after which they do not. A login with the same
// ISID has the target close the old connection first, and needs no waiting; these need it:
//  1. A write is recorded as lost when its connection's socket has been closed by a reset: nothing
//     of it is sent, or sent again, from then on.
//  2. fence_settle_time later, what was in the network has arrived or is lost, and the target's
//     port has read it or has seen the reset. The command is sent not before, and it vouches only
//     for writes that were lost that long before it was sent.
// What a reset costs the guest. It ends all commands of the LUN, those of other sessions without an
// answer, so that none of ours shall be there when it is executed:
//  1. New requests wait until those outstanding are answered, kDrainTime at most. If some are still not
//     answered then, the reset is not sent but tried again after a pause, which doubles each time.
//  2. It is sent, and new requests wait for its answer: kResetPause at most. Targets execute a
//     reset when they take it from the connection, and answer it when what it ends has come to its
//     end, which can take as long as the late write is stuck (LIO, tgt). So what is sent after that
//     pause is safe from the reset at those targets, and is not held up by an answer that may never come.
//  3. The answer is waited for all the same, without another reset, for as long as its connection
//     lives; a connection is not dropped because the answer does not come. If it comes after the
//     pause, the target may be one that executes a reset late, which may then have ended commands that
//     were sent since the pause, without answering them. They were not executed, or are writes of data
//     that is to be written again: commands that are not answered in an eighth of command_timeout are
//     aborted, and go again when the target confirms that they are gone (TaskManager).
//
// quiesce_time, which makes no use of the target, must be longer than the target's own timeout for
// connections; the settling is over far sooner. And since it costs other requests something, a
// fence is sent only when somebody waits for it.
#pragma once

#include <cstdint>
#include <string>

#include "base/reactor.h"
#include "multipath/fencing/unfenced_writes.h"
#include "multipath/path/disk_log.h"
#include "multipath/path/disk_steps.h"

namespace iscsi_blkback {

class LunFence {
 public:
  // The command, and the path that carries it.
  class Command {
   public:
    enum class Ready : std::uint8_t {
      no_path,  // the path that was chosen is not up any more
      busy,     // commands of ours that a reset would end are at the LUN
      yes,
    };
    // Chooses a path by which something is fenced that is harmless at that time or before. False:
    // there is none now.
    [[nodiscard]] virtual bool choose_path(TimePoint harmless_at) = 0;
    [[nodiscard]] virtual Ready ready() const = 0;
    // Later on_answered(), unless abandon() comes before.
    virtual void send() = 0;
    virtual void abandon() = 0;
    // It has ended. done: what it reaches, and is harmless at that time or before, is fenced. True:
    // there was something.
    [[nodiscard]] virtual bool take_answer(bool done, TimePoint harmless_at) = 0;
    // The path whose commands are ended is not kept out of use any longer.
    virtual void release_path() = 0;
    // Commands that are at the LUN now may have been ended there without an answer.
    virtual void doubt_requests() = 0;
    // "PREEMPT AND ABORT through 10.0.0.1:3260".
    [[nodiscard]] virtual std::string text() const = 0;

   protected:
    ~Command() = default;
  };

  class Owner {
   public:
    // Whether anything waits for a fence.
    [[nodiscard]] virtual bool fence_is_wanted() const = 0;
    // Some of the lost writes are fenced.
    virtual void on_lun_fenced() noexcept = 0;

   protected:
    ~Owner() = default;
  };

  // See MultipathOptions. Neither of both: nothing is fenced here.
  struct Options {
    bool preempts = false;  // PREEMPT AND ABORT
    bool resets = false;    // LOGICAL UNIT RESET
    Duration settle_time{};
    Duration quiesce_time{};
  };

  // The others outlive it.
  LunFence(Reactor& reactor, const Options& options, const UnfencedWrites& unfenced,
           Command& command, DiskSteps& steps, DiskLog& log, Owner& owner);

  // Writes have been lost.
  void start();
  // Nothing is sent to a path: the LUN is about to be reset, or is just being reset.
  [[nodiscard]] bool pausing() const { return pausing_; }
  // The command has a path.
  [[nodiscard]] bool under_way() const { return pausing_ || outstanding_; }
  // It cannot be given up any more.
  [[nodiscard]] bool must_be_awaited() const { return options_.preempts && outstanding_; }
  // After Command::send(). how: an error's name.
  void on_answered(bool done, const char* how);
  // A reset that was sent is not waited for any more, whatever becomes of it.
  void give_up_reset();
  // The guest is suspended: no reset is sent.
  void suspend();
  void stop();

 private:
  [[nodiscard]] TimePoint settled_harmless_at(TimePoint now) const;
  void on_timer();
  void look_whether_drained();
  void send(Duration patience);
  void end(bool done);
  void doubt_requests();

  Reactor& reactor_;
  const Options options_;
  const UnfencedWrites& unfenced_;
  Command& command_;
  DiskSteps& steps_;
  DiskLog& log_;
  Owner& owner_;
  Timer timer_;  // the next look
  bool pausing_ = false;
  bool outstanding_ = false;
  bool late_ = false;  // reset: requests were sent since, which it may end
  bool stopped_ = false;
  std::uint32_t failures_ = 0;  // in a row
  TimePoint sent_at_{};
  TimePoint give_up_at_{};
};

}  // namespace iscsi_blkback
