#include "initiator/lun/identification.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/byte_order.h"
#include "initiator/scsi/error_class.h"
#include "initiator/scsi/mode_pages.h"
#include "initiator/scsi/vpd.h"

namespace iscsi_blkback {
namespace {

// Unit attentions queue up at a target, one for each thing that happened: the first ones are asked
// past at once. "Busy", in whatever words, ends by itself.
constexpr std::uint32_t kAttentionsAtOnce = 20;
constexpr std::chrono::milliseconds kBusyDelay{100};
constexpr std::chrono::seconds kPatience{10};
// What is optional and refused in words that do not say that the LUN has none of it is asked for
// again, for so long in all: a guest may be waiting for the end. So is a page that is not needed,
// when the target is busy.
constexpr std::chrono::seconds kSparePatience{2};

constexpr std::uint16_t kInvalidOperation = 0x2000;
constexpr std::uint16_t kNoSuchLun = 0x2500;

constexpr std::uint8_t kEmcUnitPath = 0xc0;
constexpr std::uint8_t kRdacVolumeAccess = 0xc9;
constexpr std::size_t kLeastStandardDataBytes = 36;
constexpr const char* kEmcVendor = "DGC";  // others use page 0xC0 for something else

}  // namespace

std::uint8_t LogicalUnit::Identification::page_of(Step step) {
  return std::find_if(kPages.begin(), kPages.end(),
                      [step](const auto& each) { return each.first == step; })
      ->second;
}

LogicalUnit::Identification::Identification(Reactor& reactor, LogicalUnit& unit, Identified on_done,
                                            void* owner)
    : reactor_(reactor),
      unit_(unit),
      session_(unit.session_),
      lun_(unit.lun_),
      on_done_(on_done),
      owner_(owner),
      retry_timer_(
          reactor, [](void* self) noexcept { static_cast<Identification*>(self)->send(); }, this),
      answered_at_(reactor.now()),
      patience_(kPatience),
      spare_patience_(kSparePatience),
      questions_(unit.questions_) {
  task_.owner = this;
  task_.on_complete = &Identification::on_complete;
  task_.silences = questions_->silences;
}

void LogicalUnit::Identification::begin() {
  send();
}

void LogicalUnit::Identification::begin_access(const LogicalUnitAccess& known, bool serves) {
  only_access_ = true;
  known_ = known;
  take_known();
  if (serves) {
    step_ = next_of_access(Step::test_unit_ready);
  }
  send();
}

void LogicalUnit::Identification::take_known() {
  const LogicalUnitAccess& known = known_;
  pages_.emplace();
  LogicalUnitAccess& access = identity_.access;
  access.tpgs = known.tpgs;
  access.port = known.port;
  access.rdac_max_lun = known.rdac_max_lun;
  if (known.rdac) {
    pages_->push_back(kRdacVolumeAccess);
  }
  if (known.emc) {
    pages_->push_back(kEmcUnitPath);
    identity_.vendor = kEmcVendor;
  }
}

void LogicalUnit::Identification::start_over() {
  start_over_ = step_ != Step::test_unit_ready;
}

bool LogicalUnit::Identification::abandon() {
  retry_timer_.stop();
  if (outstanding_) {
    abandoned_ = true;
    ++questions_->unanswered;
  }
  return outstanding_;
}

std::uint32_t LogicalUnit::Identification::spare_question() const {
  const bool is_spare = is_optional() && !is_needed_page() && step_ != Step::read_capacity16;
  return outstanding_ && is_spare ? bit(step_) : 0;
}

std::unique_ptr<LogicalUnit::Identification> LogicalUnit::Identification::successor() const {
  return std::make_unique<Identification>(reactor_, unit_, on_done_, owner_);
}

bool LogicalUnit::Identification::done_without(Step step) const {
  return (unit_.done_without_ & bit(step)) != 0;
}

std::string LogicalUnit::Identification::question() const {
  const bool page = (task_.cdb[1] & 1) != 0;
  switch (task_.cdb[0]) {
    case scsi_operation::kInquiry:
      return page ? fmt::format("INQUIRY of page 0x{:02X}", task_.cdb[2]) : "INQUIRY";
    case scsi_operation::kReadCapacity10:
    case scsi_operation::kServiceActionIn16:
      return "READ CAPACITY";
    case scsi_operation::kModeSense6:
    case scsi_operation::kModeSense10:
      return "MODE SENSE";
    case scsi_operation::kMaintenanceIn:
      return "REPORT TARGET PORT GROUPS";
    default:
      return "TEST UNIT READY";
  }
}

Duration LogicalUnit::Identification::longest(Duration longest_answer) {
  // All steps, and the long form of each page and of the list of pages.
  constexpr int kMostQuestions = static_cast<int>(Step::done) + static_cast<int>(kPages.size()) + 1;
  return kMostQuestions * longest_answer + kPatience + kSparePatience;
}

bool LogicalUnit::Identification::Patience::lasts(TimePoint now) {
  refused_since_ = refused_since_.value_or(now);
  return spent_ + (now - *refused_since_) < limit_;
}

void LogicalUnit::Identification::Patience::on_answer(TimePoint now) {
  if (refused_since_) {
    spent_ += now - *refused_since_;
    refused_since_.reset();
  }
}

void LogicalUnit::Identification::forget() {
  step_ = Step::test_unit_ready;
  has_16_byte_commands_ = true;
  has_mode_sense6_ = true;
  pages_.reset();
  standard_data_.clear();
  short_page_.clear();
  identity_ = {};
  if (only_access_) {
    take_known();
  }
}

void LogicalUnit::Identification::send() {
  if (std::exchange(start_over_, false)) {
    forget();
  }
  std::uint16_t bytes = 0;
  const std::uint16_t page_bytes = short_page_.empty() ? kShortPageBytes : kLongPageBytes;
  switch (step_) {
    case Step::test_unit_ready:
      task_.cdb = test_unit_ready_cdb();
      break;
    case Step::inquiry:
      task_.cdb = inquiry_cdb(-1, bytes = 96);
      break;
    case Step::supported_pages:
      task_.cdb = inquiry_cdb(0x00, bytes = page_bytes);
      break;
    case Step::unit_serial_number:
    case Step::device_identification:
    case Step::block_limits:
    case Step::block_characteristics:
    case Step::logical_block_provisioning:
    case Step::rdac_software_version:
      task_.cdb = inquiry_cdb(page_of(step_), bytes = page_bytes);
      break;
    case Step::rdac_volume_access:
      task_.cdb = inquiry_cdb(kRdacVolumeAccess, bytes = 48);
      break;
    case Step::emc_unit_path:
      task_.cdb = inquiry_cdb(kEmcUnitPath, bytes = 128);
      break;
    case Step::target_port_groups:
      // Without the extended header: some devices refuse it, and all that it adds is a time limit.
      task_.cdb = report_target_port_groups_cdb(bytes = kBufferBytes, false);
      break;
    case Step::read_capacity16:
      task_.cdb = read_capacity16_cdb(bytes = 32);
      break;
    case Step::read_capacity10:
      task_.cdb = read_capacity10_cdb();
      bytes = 8;
      break;
    case Step::mode_sense6:
      // All pages; more than 192 bytes confuse some devices.
      task_.cdb = mode_sense6_cdb(0x3f, 192);
      bytes = 192;
      break;
    case Step::mode_sense10:
      task_.cdb = mode_sense10_cdb(0x3f, bytes = 512);
      break;
    case Step::done:
      ISCSI_BLKBACK_ASSERT(false);
  }
  buffer_.fill(std::byte{0});
  task_.lun = lun_;
  task_.direction = bytes == 0 ? DataDirection::none : DataDirection::in;
  task_.data = bytes == 0 ? nullptr : buffer_.data();
  task_.data_length_bytes = bytes;
  be_patient();
  outstanding_ = true;
  sent_at_ = reactor_.now();
  session_.submit(task_);
}

void LogicalUnit::Identification::be_patient() {
  const auto limit = session_.options().command_timeout;
  if (task_.stuck == 0 && limit.count() != 0 && unit_.patience(Duration::zero()) > limit) {
    ScsiTask::count_up(task_.stuck);
  }
}

void LogicalUnit::Identification::on_complete(ScsiTask& task) noexcept {
  auto* self = static_cast<Identification*>(task.owner);
  self->outstanding_ = false;
  const TimePoint now = self->reactor_.now();
  self->questions_->note(task, now - self->sent_at_, now);
  if (self->abandoned_) {
    --self->questions_->unanswered;
    delete self;
    return;
  }
  self->take_completion();
}

void LogicalUnit::Identification::take_completion() {
  const TimePoint now = reactor_.now();
  answered_at_ = now;
  const bool later = not_now();
  const bool attention = later && task_.ended_with_attention();
  const bool spare = later && !attention && is_spare_page();
  if (later && !spare) {
    ++retries_;
    if (patience_.lasts(now)) {
      if (attention) {
        start_over();
      }
      retry_timer_.start_after(attention && retries_ <= kAttentionsAtOnce ? Duration::zero()
                                                                          : Duration{kBusyDelay});
      return;
    }
    if (attention) {
      finish(tl::unexpected(failure()));  // no answer would be worth anything
      return;
    }
  } else if (start_over_ && task_.outcome == TaskOutcome::completed) {
    send();
    return;
  } else if (spare || refused_in_doubt()) {
    if (spare_patience_.lasts(now)) {
      retry_timer_.start_after(kBusyDelay);
      return;
    }
  } else {
    patience_.on_answer(now);
    spare_patience_.on_answer(now);
  }
  const Result<Step> next = take_answer();
  if (!next) {
    finish(tl::unexpected(next.error()));
    return;
  }
  step_ = *next;
  if (step_ == Step::done) {
    unit_.access_ = identity_.access;
    identity_.names.serial = identity_.serial;
    identity_.wwid = wwid_of(identity_.names);
    if (identity_.block_count != 0) {
      unit_.logical_block_bytes_ = identity_.logical_block_bytes;
      unit_.has_16_byte_commands_ = has_16_byte_commands_;
      unit_.write_cache_ = identity_.write_cache;
      unit_.block_count_ = identity_.block_count;
      unit_.refused_forms_ = 0;
    }
    finish(std::move(identity_));
    return;
  }
  send();
}

void LogicalUnit::Identification::finish(Result<LogicalUnitIdentity> identity) {
  const Identified on_done = on_done_;
  void* const owner = owner_;
  // The unit may be asked again, or go, from inside the call.
  const std::unique_ptr<Identification> self = std::move(unit_.identification_);
  on_done(owner, std::move(identity));
}

bool LogicalUnit::Identification::not_now() const {
  if (task_.outcome != TaskOutcome::completed) {
    return false;
  }
  switch (classify(task_, Transfer::at_most)) {
    case ErrorClass::busy:
    case ErrorClass::task_set_full:
    case ErrorClass::task_aborted:
    case ErrorClass::aca_active:
    case ErrorClass::deferred_error:
    case ErrorClass::aborted_command:
      return true;
    default:
      return task_.ended_with_attention();
  }
}

bool LogicalUnit::Identification::refused_as_unknown() const {
  return task_.outcome == TaskOutcome::completed && task_.status == ScsiStatus::check_condition &&
         task_.sense.valid && task_.sense.key == SenseKey::illegal_request &&
         task_.sense.code() != kNoSuchLun;
}

// What cannot be a capacity comes from a target that does not know the long form.
bool LogicalUnit::Identification::is_capacity16() const {
  const auto capacity = parse_read_capacity16(answer());
  return capacity || capacity.error().code != ErrorCode::protocol;
}

bool LogicalUnit::Identification::is_spare_page() const {
  return step_ >= Step::supported_pages && step_ < Step::read_capacity16 && may_do_without();
}

bool LogicalUnit::Identification::is_optional() const {
  return step_ >= Step::supported_pages && step_ <= Step::mode_sense10 &&
         step_ != Step::read_capacity10;
}

bool LogicalUnit::Identification::refused_in_doubt() const {
  if (!is_optional() || lost() || task_.outcome == TaskOutcome::aborted || refused_as_unknown() ||
      refused_here()) {
    return false;
  }
  const ErrorClass error = classify(task_, Transfer::at_most);
  return error != ErrorClass::success && error != ErrorClass::lun_missing;
}

bool LogicalUnit::Identification::says_who() const {
  return step_ == Step::unit_serial_number || step_ == Step::device_identification;
}

bool LogicalUnit::Identification::is_needed_page() const {
  return says_who() || step_ == Step::supported_pages || step_ == Step::block_limits;
}

bool LogicalUnit::Identification::may_do_without() const {
  switch (classify(task_, Transfer::at_most)) {
    case ErrorClass::connection_lost:
    case ErrorClass::not_sent:
    case ErrorClass::lun_missing:
      return false;
    // A LUN that is known by less than it could be is not the same for others: better later.
    case ErrorClass::command_stuck:
      return !says_who();
    case ErrorClass::busy:
    case ErrorClass::task_set_full:
    case ErrorClass::task_aborted:
    case ErrorClass::aca_active:
    case ErrorClass::deferred_error:
    case ErrorClass::aborted_command:
      return !is_needed_page();
    // Trouble with a page that the LUN's own list has is no word that there is none.
    case ErrorClass::target_failure:
    case ErrorClass::medium_unrecovered:
    case ErrorClass::medium_other:
    case ErrorClass::hardware_error:
      return !says_who() || !has_page(page_of(step_));
    // Where it is not served now, all of it is asked for again when it is.
    case ErrorClass::becoming_ready:
    case ErrorClass::format_in_progress:
    case ErrorClass::access_transition:
    case ErrorClass::access_state:
    case ErrorClass::communication_failure:
    case ErrorClass::not_ready:
      return step_ != Step::read_capacity16 && !says_who() &&
             (!is_needed_page() || identity_.access.refused.has_value());
    default:
      return true;
  }
}

// Cut off or not: what no page has in common with them, but by chance, is among the first bytes.
bool LogicalUnit::Identification::is_standard_data(std::span<const std::byte> page) const {
  constexpr std::size_t kTellingBytes = 5;
  const std::size_t bytes = std::min(page.size(), kLeastStandardDataBytes);
  return bytes >= kTellingBytes &&
         std::equal(page.begin(), page.begin() + static_cast<std::ptrdiff_t>(bytes),
                    standard_data_.begin());
}

std::span<const std::byte> LogicalUnit::Identification::answer() const {
  return {buffer_.data(), task_.transferred_bytes};
}

bool LogicalUnit::Identification::lost() const {
  return task_.outcome == TaskOutcome::connection_lost || task_.outcome == TaskOutcome::not_sent;
}

Error LogicalUnit::Identification::failure() const {
  const auto lun = fmt::format("LUN {} of {}", lun_text(lun_), session_.options().target_name);
  if (task_.outcome == TaskOutcome::target_failure) {
    return {ErrorCode::io, fmt::format("{}: the target failed with iSCSI response 0x{:02x}", lun,
                                       task_.response_code)};
  }
  if (task_.outcome == TaskOutcome::aborted) {
    return {ErrorCode::timed_out,
            fmt::format("{} does not answer; the command was aborted after command_timeout", lun)};
  }
  if (task_.outcome != TaskOutcome::completed) {
    return {ErrorCode::unavailable, fmt::format("{}: the connection was lost", lun)};
  }
  if (task_.status == ScsiStatus::check_condition && task_.sense.valid) {
    if (task_.sense.code() == kNoSuchLun) {
      return {ErrorCode::not_found, lun + " does not exist; check the LUN's number and mapping"};
    }
    const bool waiting = task_.sense.key == SenseKey::not_ready;
    return {
        waiting ? ErrorCode::unavailable : ErrorCode::io,
        fmt::format("{} {}: sense {}", lun, waiting ? "is not ready" : "refuses to be identified",
                    sense_text(task_.sense))};
  }
  return {ErrorCode::io, fmt::format("{} refuses to be identified: SCSI status 0x{:02x}", lun,
                                     static_cast<unsigned>(task_.status))};
}

Result<LogicalUnit::Identification::Step> LogicalUnit::Identification::take_answer() {
  const bool good = classify(task_, Transfer::at_most) == ErrorClass::success;
  switch (step_) {
    case Step::test_unit_ready:
      // Some devices know no TEST UNIT READY on a LUN that INQUIRY then says more about. A
      // reservation of somebody else's keeps nobody from asking who the LUN is.
      identity_.access.refused = refused_here();
      if (!good && !identity_.access.refused &&
          !(refused_as_unknown() && task_.sense.code() == kInvalidOperation) &&
          classify(task_, Transfer::at_most) != ErrorClass::reservation_conflict) {
        return tl::unexpected(failure());
      }
      return only_access_ ? next_of_access(Step::test_unit_ready) : Step::inquiry;
    case Step::inquiry:
      if (!good) {
        return tl::unexpected(failure());
      }
      return take_inquiry();
    case Step::supported_pages:
    case Step::unit_serial_number:
    case Step::device_identification:
    case Step::block_limits:
    case Step::block_characteristics:
    case Step::logical_block_provisioning:
    case Step::rdac_software_version:
      if (lost() || (!good && !may_do_without())) {
        return tl::unexpected(failure());
      }
      return take_page(good ? answer() : std::span<const std::byte>());
    case Step::read_capacity16:
      if (const auto refused = refused_here()) {
        identity_.access.refused = refused;  // the capacity is asked for again when it is served
        return next_of_access(Step::mode_sense10);
      }
      if (good ? !is_capacity16() : may_do_without()) {
        has_16_byte_commands_ = false;
        return Step::read_capacity10;
      }
      [[fallthrough]];
    case Step::read_capacity10:
      if (!good) {
        return tl::unexpected(failure());
      }
      return take_capacity();
    case Step::mode_sense6:
    case Step::mode_sense10:
      if (lost()) {
        return tl::unexpected(failure());
      }
      return take_mode_sense(good);
    case Step::rdac_volume_access:
    case Step::emc_unit_path:
    case Step::target_port_groups:
      if (lost()) {
        return tl::unexpected(failure());
      }
      if (good) {
        take_access();
      }
      return next_of_access(step_);
    case Step::done:
      break;
  }
  return Step::done;
}

Result<LogicalUnit::Identification::Step> LogicalUnit::Identification::take_inquiry() {
  const Result<InquiryData> inquiry = parse_inquiry(answer());
  if (!inquiry) {
    return tl::unexpected(inquiry.error());
  }
  if (inquiry->peripheral_qualifier != 0 || inquiry->device_type == 0x1f) {
    return fail(ErrorCode::not_found,
                fmt::format("LUN {} of {} does not exist; check the LUN's number and mapping",
                            lun_text(lun_), session_.options().target_name));
  }
  if (inquiry->device_type != 0x00 && inquiry->device_type != 0x0e) {
    return fail(ErrorCode::unsupported,
                fmt::format("LUN {} of {} is not a disk (SCSI device type 0x{:02x})",
                            lun_text(lun_), session_.options().target_name, inquiry->device_type));
  }
  standard_data_.assign(answer().begin(),
                        answer().begin() + static_cast<std::ptrdiff_t>(kLeastStandardDataBytes));
  identity_.names.vendor = inquiry->vendor_bytes;
  identity_.names.product = inquiry->product_bytes;
  identity_.vendor = inquiry->vendor;
  identity_.product = inquiry->product;
  identity_.revision = inquiry->revision;
  identity_.tpgs = inquiry->tpgs;
  identity_.access.tpgs = inquiry->tpgs;
  return Step::supported_pages;
}

// A page that is not what was asked for, or that says nothing, is done without.
LogicalUnit::Identification::Step LogicalUnit::Identification::take_page(
    std::span<const std::byte> page) {
  const std::vector<std::byte> first = std::exchange(short_page_, {});
  if (first.empty() && page.size() >= kShortPageBytes && load_be16(&page[2]) + 4U > page.size()) {
    short_page_.assign(page.begin(), page.end());
    return step_;
  }
  if (page.size() < first.size()) {
    page = first;
  }
  if (!is_standard_data(page)) {
    read_page(page);
  }
  return next_page(step_);
}

void LogicalUnit::Identification::read_page(std::span<const std::byte> page) {
  switch (step_) {
    case Step::supported_pages:
      if (auto pages = parse_supported_pages(page); pages && !pages->empty()) {
        pages_ = std::move(*pages);
      }
      return;
    case Step::unit_serial_number:
      identity_.serial = parse_unit_serial_number(page).value_or("");
      return;
    case Step::device_identification:
      identity_.names.designators = parse_designators(page).value_or(std::vector<Designator>());
      identity_.access.port = parse_target_port_ids(page);
      return;
    case Step::block_limits:
      if (const auto limits = parse_block_limits(page)) {
        identity_.limits = *limits;
        identity_.max_transfer_blocks = limits->max_transfer_blocks;
      }
      return;
    case Step::block_characteristics:
      if (const auto characteristics = parse_block_characteristics(page)) {
        identity_.rotation_rate = characteristics->rotation_rate;
      }
      return;
    case Step::logical_block_provisioning:
      if (const auto provisioning = parse_logical_block_provisioning(page)) {
        identity_.provisioning = *provisioning;
      }
      return;
    case Step::rdac_software_version:
      identity_.access.rdac_max_lun = parse_rdac_max_lun(page).value_or(0);
      return;
    default:
      return;
  }
}

Result<LogicalUnit::Identification::Step> LogicalUnit::Identification::take_capacity() {
  const auto capacity = step_ == Step::read_capacity16 ? parse_read_capacity16(answer())
                                                       : parse_read_capacity10(answer());
  if (!capacity) {
    return tl::unexpected(capacity.error());
  }
  identity_.block_count = capacity->block_count;
  identity_.logical_block_bytes = capacity->logical_block_bytes;
  identity_.physical_block_bytes = capacity->physical_block_bytes;
  identity_.thin_provisioned = capacity->thin_provisioned;
  identity_.provisioning.reads_zeros = identity_.provisioning.reads_zeros || capacity->reads_zeros;
  identity_.has_16_byte_commands = has_16_byte_commands_;
  if (!has_16_byte_commands_ &&
      (identity_.max_transfer_blocks == 0 || identity_.max_transfer_blocks > 65535)) {
    identity_.max_transfer_blocks = 65535;  // what READ(10) and WRITE(10) can say
  }
  return !done_without(Step::mode_sense6) ? Step::mode_sense6 : after_mode_sense6();
}

LogicalUnit::Identification::Step LogicalUnit::Identification::after_mode_sense6() const {
  return !done_without(Step::mode_sense10) ? Step::mode_sense10
                                           : next_of_access(Step::mode_sense10);
}

// Optional: without it a write tells of write protection, and flushes are sent in any case. A LUN
// that knows neither form has no write cache; of one that is in trouble nothing is known.
LogicalUnit::Identification::Step LogicalUnit::Identification::take_mode_sense(bool good) {
  if (const auto refused = refused_here()) {
    identity_.access.refused = refused;  // all of it is asked for again when it is served
    return next_of_access(Step::mode_sense10);
  }
  const bool told = good && take_mode_data();
  const bool unknown =
      refused_as_unknown() && classify(task_, Transfer::at_most) != ErrorClass::access_state;
  const bool answered =
      task_.outcome == TaskOutcome::completed || task_.outcome == TaskOutcome::target_failure;
  if (step_ == Step::mode_sense6 && !told && answered) {
    has_mode_sense6_ = !unknown;
    return after_mode_sense6();
  }
  if (unknown && !has_mode_sense6_) {
    identity_.write_cache = WriteCache::off;
  }
  return next_of_access(Step::mode_sense10);
}

bool LogicalUnit::Identification::take_mode_data() {
  if (is_standard_data(answer())) {
    return false;
  }
  const Result<ModeData> mode =
      step_ == Step::mode_sense6 ? parse_mode_sense6(answer()) : parse_mode_sense10(answer());
  if (!mode) {
    return false;
  }
  identity_.force_unit_access = mode->force_unit_access;
  if (!mode->caching_cut_off) {
    identity_.write_cache =
        mode->caching && mode->caching->write_cache ? WriteCache::on : WriteCache::off;
  }
  if (mode->control) {
    identity_.software_write_protect = mode->control->software_write_protect;
    identity_.task_aborted_status = mode->control->task_aborted_status;
  }
  identity_.write_protected = mode->write_protected || identity_.software_write_protect;
  return !mode->caching_cut_off;
}

// Who the LUN is, is asked whatever its list of pages says, and without a list so is what all disks
// may have; what is a vendor's own only where the list has it.
LogicalUnit::Identification::Step LogicalUnit::Identification::next_page(Step after) const {
  for (const auto& [step, page] : kPages) {
    const bool asked = step == Step::rdac_software_version
                           ? has_page(page) && has_page(kRdacVolumeAccess)
                           : !pages_ || has_page(page) || step <= Step::device_identification;
    if (step > after && asked && !done_without(step)) {
      return step;
    }
  }
  return Step::read_capacity16;
}

LogicalUnit::Identification::Step LogicalUnit::Identification::next_of_access(Step after) const {
  if (after < Step::rdac_volume_access && has_page(kRdacVolumeAccess)) {
    return Step::rdac_volume_access;
  }
  if (after < Step::emc_unit_path && has_page(kEmcUnitPath) && identity_.vendor == kEmcVendor) {
    return Step::emc_unit_path;
  }
  if (after < Step::target_port_groups && identity_.access.tpgs != 0) {
    return Step::target_port_groups;
  }
  return Step::done;
}

// What is not understood is not known; that is no reason to do without the path.
void LogicalUnit::Identification::take_access() {
  LogicalUnitAccess& access = identity_.access;
  if (step_ == Step::rdac_volume_access) {
    if (const auto parsed = parse_rdac_volume_access(answer())) {
      access.rdac = *parsed;
    }
  } else if (step_ == Step::emc_unit_path) {
    if (const auto parsed = parse_emc_unit_path(answer())) {
      access.emc = *parsed;
    }
  } else if (auto parsed = parse_target_port_groups(answer())) {
    access.groups = std::move(parsed->groups);
  }
}

bool LogicalUnit::Identification::has_page(std::uint8_t page) const {
  return pages_ && std::find(pages_->begin(), pages_->end(), page) != pages_->end();
}

std::optional<AccessState> LogicalUnit::Identification::refused_here() const {
  if (task_.outcome != TaskOutcome::completed || task_.status != ScsiStatus::check_condition ||
      !task_.sense.valid || task_.sense.key != SenseKey::not_ready) {
    return std::nullopt;
  }
  switch (task_.sense.code()) {
    case 0x040a:
      return AccessState::transitioning;
    case 0x040b:
      return AccessState::standby;
    case 0x040c:
      return AccessState::unavailable;
    case 0x0412:
      return AccessState::offline;
    default:
      return std::nullopt;
  }
}

}  // namespace iscsi_blkback
