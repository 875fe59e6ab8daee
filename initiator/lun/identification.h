// LogicalUnit::Identification: the sequence of commands that asks a LUN who it is, one after the
// other; included by logical_unit.cpp and identification.cpp only. Reactor thread.
//
// A unit attention in the middle may say that the LUN is another one by now: what was asked before
// it counts for nothing.
// A cancelled one lives on by itself until its command is back, because the command's buffer is its
// own.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/reactor.h"
#include "initiator/lun/logical_unit.h"
#include "initiator/scsi/cdb.h"
#include "initiator/scsi/scsi_task.h"

namespace iscsi_blkback {

class LogicalUnit::Identification {
 public:
  Identification(Reactor& reactor, LogicalUnit& unit, Identified on_done, void* owner);

  void begin();
  // Only the steps that tell how well the LUN is served here. known: of the last identification.
  // serves: see LogicalUnit::read_access().
  void begin_access(const LogicalUnitAccess& known, bool serves);
  // What has been asked so far may not hold any more: from the first question again.
  void start_over();
  // True: deletes itself when its command is back. False: nothing is outstanding.
  [[nodiscard]] bool abandon();
  // The bit of the step that is not answered, when it is one without which the LUN is usable and
  // known; else 0.
  [[nodiscard]] std::uint32_t spare_question() const;
  // One for the same owner, which has not begun.
  [[nodiscard]] std::unique_ptr<Identification> successor() const;
  // See LogicalUnit.
  [[nodiscard]] TimePoint answered_at() const { return answered_at_; }
  [[nodiscard]] std::string question() const;
  [[nodiscard]] static Duration longest(Duration longest_answer);

 private:
  // The time for which what is not answered now is asked for again, in all: from each refusal to
  // the next answer.
  class Patience {
   public:
    explicit Patience(Duration limit) : limit_(limit) {}
    // At a refusal: whether to ask again.
    [[nodiscard]] bool lasts(TimePoint now);
    void on_answer(TimePoint now);

   private:
    Duration limit_;
    Duration spent_{};
    std::optional<TimePoint> refused_since_;
  };

  enum class Step : std::uint8_t {
    test_unit_ready,
    inquiry,
    supported_pages,
    unit_serial_number,
    device_identification,
    block_limits,
    block_characteristics,
    logical_block_provisioning,
    rdac_software_version,
    read_capacity16,
    read_capacity10,
    mode_sense6,
    mode_sense10,
    rdac_volume_access,
    emc_unit_path,
    target_port_groups,
    done,
  };
  static constexpr std::uint32_t bit(Step step) { return 1U << static_cast<unsigned>(step); }
  // Pages of vital product data that are asked for where the LUN may have them, in this order.
  static constexpr std::array<std::pair<Step, std::uint8_t>, 6> kPages{{
      {Step::unit_serial_number, std::uint8_t{0x80}},
      {Step::device_identification, std::uint8_t{0x83}},
      {Step::block_limits, std::uint8_t{0xb0}},
      {Step::block_characteristics, std::uint8_t{0xb1}},
      {Step::logical_block_provisioning, std::uint8_t{0xb2}},
      {Step::rdac_software_version, std::uint8_t{0xc2}},
  }};
  // step: one of kPages.
  [[nodiscard]] static std::uint8_t page_of(Step step);
  static constexpr std::size_t kBufferBytes = 4096;
  // What is asked for of a page: as much as fits into one byte, since there are targets that read
  // no more of the allocation length (SCSI-2), and more only of one that says that it is longer.
  static constexpr std::uint16_t kShortPageBytes = 0xff;
  static constexpr std::uint16_t kLongPageBytes = 0x0fff;

  static void on_complete(ScsiTask& task) noexcept;
  void send();
  void take_completion();
  void take_known();
  void forget();
  // The target wants to be asked again: it is busy, or has something else to tell first.
  [[nodiscard]] bool not_now() const;
  [[nodiscard]] bool refused_as_unknown() const;
  // A page that tells which LUN it is.
  [[nodiscard]] bool says_who() const;
  // Such a page, or one that tells what the array can and how much it takes with one command: that
  // is known before the LUN is used.
  [[nodiscard]] bool is_needed_page() const;
  // A page without which the LUN is usable and known, whatever becomes of it.
  [[nodiscard]] bool is_spare_page() const;
  // A page or a form of a command that not every LUN has, or that it may be able to do without.
  [[nodiscard]] bool is_optional() const;
  // Refused, optional, and in other words than those for what a LUN does not have.
  [[nodiscard]] bool refused_in_doubt() const;
  // Refused: the LUN is usable without the answer.
  [[nodiscard]] bool may_do_without() const;
  // Some targets send the standard INQUIRY data, whatever page is asked for.
  [[nodiscard]] bool is_standard_data(std::span<const std::byte> page) const;
  // Where the LUN is known to take longer than command_timeout, a question is not aborted after
  // that, as if it had been given up before.
  void be_patient();
  // Reads the answer and chooses the next step; an error ends the identification.
  [[nodiscard]] Result<Step> take_answer();
  [[nodiscard]] Result<Step> take_inquiry();
  // page: empty when there is none.
  [[nodiscard]] Step take_page(std::span<const std::byte> page);
  void read_page(std::span<const std::byte> page);
  [[nodiscard]] Result<Step> take_capacity();
  [[nodiscard]] bool is_capacity16() const;
  [[nodiscard]] Step after_mode_sense6() const;
  [[nodiscard]] Step take_mode_sense(bool good);
  // False: it does not tell whether there is a write cache.
  [[nodiscard]] bool take_mode_data();
  [[nodiscard]] bool done_without(Step step) const;
  [[nodiscard]] Step next_page(Step after) const;
  [[nodiscard]] Step next_of_access(Step after) const;
  void take_access();
  [[nodiscard]] bool has_page(std::uint8_t page) const;
  // The LUN is not served through this target port now; it still tells who it is.
  [[nodiscard]] std::optional<AccessState> refused_here() const;
  [[nodiscard]] Error failure() const;
  [[nodiscard]] std::span<const std::byte> answer() const;
  [[nodiscard]] bool lost() const;
  void finish(Result<LogicalUnitIdentity> identity);

  Reactor& reactor_;
  LogicalUnit& unit_;
  Session& session_;
  const std::uint64_t lun_;
  Identified on_done_;
  void* owner_;
  Timer retry_timer_;
  Step step_ = Step::test_unit_ready;
  TimePoint answered_at_;
  std::uint32_t retries_ = 0;
  Patience patience_;
  Patience spare_patience_;
  bool outstanding_ = false;
  std::shared_ptr<Questions> questions_;  // LogicalUnit's, which may be gone
  TimePoint sent_at_{};
  bool abandoned_ = false;
  bool start_over_ = false;
  bool only_access_ = false;
  LogicalUnitAccess known_;  // with only_access_
  bool has_16_byte_commands_ = true;
  bool has_mode_sense6_ = true;
  std::optional<std::vector<std::uint8_t>> pages_;  // nullopt: no list that can be one
  std::vector<std::byte> standard_data_;
  std::vector<std::byte> short_page_;  // while the same page is asked for again, longer
  LogicalUnitIdentity identity_;
  ScsiTask task_;
  std::array<std::byte, kBufferBytes> buffer_;
};

}  // namespace iscsi_blkback
