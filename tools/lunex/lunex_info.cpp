#include "tools/lunex/lunex_info.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <span>
#include <utility>

#include "initiator/scsi/error_class.h"
#include "multipath/multipath_text.h"

namespace iscsi_blkback {
namespace {

constexpr std::size_t kAnswerBytes = 8192;
constexpr int kTries = 4;  // unit attentions are reported one at a time

// One command whose answer may be missing. Owns what the session writes to until it has completed.
struct Question {
  ScsiTask task;
  std::vector<std::byte> answer = std::vector<std::byte>(kAnswerBytes);
  bool done = false;
};

class Asker {
 public:
  Asker(Session& session, LogicalUnit& unit, const RunUntil& run_until)
      : session_(session), unit_(unit), run_until_(run_until), login_(session.login_epoch()) {}

  // A connection that was lost has taken answers with it.
  [[nodiscard]] bool lost() const {
    return session_.login_epoch() != login_ ||
           (session_.state() != SessionState::logged_in && !dropped_);
  }

  // What prepare(unit, task, buffer) asks and parse understands; nothing when the LUN refuses.
  template <class Prepare, class Parse>
  auto ask(Prepare prepare, Parse parse)
      -> std::optional<typename decltype(parse(std::span<const std::byte>()))::value_type> {
    for (int attempt = 0; attempt < kTries; ++attempt) {
      auto question = std::make_unique<Question>();
      prepare(unit_, question->task, std::span<std::byte>(question->answer));
      question->task.owner = question.get();
      question->task.on_complete = [](ScsiTask& task) noexcept {
        static_cast<Question*>(task.owner)->done = true;
      };
      session_.submit(question->task);
      if (!run_until_([&] { return question->done; })) {
        // The session still has it; dropping the connection gives it back.
        session_.drop(Error{ErrorCode::timed_out, "the LUN does not answer a question"});
        while (!question->done) {
          static_cast<void>(run_until_([&] { return question->done; }));
        }
        // The next question is asked all the same.
        static_cast<void>(run_until_([&] { return session_.state() == SessionState::logged_in; }));
        login_ = session_.login_epoch();
        dropped_ = true;
        return std::nullopt;
      }
      const ScsiTask& task = question->task;
      if (task.outcome != TaskOutcome::completed) {
        return std::nullopt;
      }
      if (classify(task, Transfer::at_most) == ErrorClass::success) {
        auto parsed =
            parse(std::span<const std::byte>(question->answer).first(task.transferred_bytes));
        if (!parsed) {
          return std::nullopt;
        }
        return std::move(*parsed);
      }
      if (task.status != ScsiStatus::check_condition ||
          task.sense.key != SenseKey::unit_attention) {
        return std::nullopt;
      }
    }
    return std::nullopt;
  }

 private:
  Session& session_;
  LogicalUnit& unit_;
  const RunUntil& run_until_;
  std::uint64_t login_;
  bool dropped_ = false;  // by ourselves
};

const char* yes_no(bool value) {
  return value ? "yes" : "no";
}

std::string or_none(const std::string& text) {
  return text.empty() ? "none" : text;
}

const char* reservation_word(ReservationType type) {
  switch (type) {
    case ReservationType::none:
      break;
    case ReservationType::write_exclusive:
      return "write exclusive";
    case ReservationType::exclusive_access:
      return "exclusive access";
    case ReservationType::write_exclusive_registrants_only:
      return "write exclusive, registrants only";
    case ReservationType::exclusive_access_registrants_only:
      return "exclusive access, registrants only";
    case ReservationType::write_exclusive_all_registrants:
      return "write exclusive, all registrants";
    case ReservationType::exclusive_access_all_registrants:
      return "exclusive access, all registrants";
  }
  return "unknown type";
}

const char* tpgs_word(std::uint8_t tpgs) {
  constexpr const char* kWords[] = {"none", "implicit", "explicit", "implicit and explicit"};
  return kWords[tpgs & 3];
}

std::vector<std::string> lun_texts(const std::vector<std::uint64_t>& luns) {
  std::vector<std::string> texts;
  for (const std::uint64_t lun : luns) {
    texts.push_back(lun_text(lun));
  }
  return texts;
}

std::vector<std::string> key_texts(const ReservationKeys& keys) {
  std::vector<std::string> texts;
  for (const std::uint64_t key : keys.keys) {
    texts.push_back(fmt::format("{:#x}", key));
  }
  return texts;
}

}  // namespace

Result<LunexInfo> ask_lun(Reactor& reactor, Session& session, std::uint32_t lun,
                          const RunUntil& run_until) {
  LunexInfo info;
  info.target_name = session.options().target_name;
  info.portal = session.portal_address().to_string();
  info.lun = lun;
  info.login = session.negotiated();

  LogicalUnit unit(reactor, session, encode_lun(lun));
  std::optional<Result<LogicalUnitIdentity>> identity;
  unit.identify(
      [](void* owner, Result<LogicalUnitIdentity> result) noexcept {
        *static_cast<std::optional<Result<LogicalUnitIdentity>>*>(owner) = std::move(result);
      },
      &identity);
  // However slow it is: the time that run_until gives is that of an answer.
  for (TimePoint before = unit.answered_at(); !run_until([&] { return identity.has_value(); });
       before = unit.answered_at()) {
    if (unit.answered_at() == before && !unit.do_without_answer()) {
      const std::string question = unit.question();
      unit.cancel_identify();
      return fail(ErrorCode::timed_out, fmt::format("{} is not answered", question));
    }
  }
  if (!*identity) {
    return tl::unexpected(identity->error());
  }
  info.identity = std::move(**identity);
  if (info.identity.block_count == 0) {
    return fail(
        ErrorCode::unavailable,
        fmt::format("LUN {} of {} is not served through this portal now: it is {} there", lun,
                    info.target_name,
                    to_string(info.identity.access.refused.value_or(AccessState::unavailable))));
  }

  Asker asker(session, unit, run_until);
  if (info.identity.tpgs != 0) {
    info.port_groups = asker.ask(
        [](const LogicalUnit& of, ScsiTask& task, std::span<std::byte> buffer) {
          of.prepare_report_target_port_groups(task, buffer, false);
        },
        parse_target_port_groups);
  }
  info.reservation_keys = asker.ask(
      [](const LogicalUnit& of, ScsiTask& task, std::span<std::byte> buffer) {
        of.prepare_reserve_in(task, ReserveInAction::read_keys, buffer);
      },
      parse_reservation_keys);
  info.reservation = asker.ask(
      [](const LogicalUnit& of, ScsiTask& task, std::span<std::byte> buffer) {
        of.prepare_reserve_in(task, ReserveInAction::read_reservation, buffer);
      },
      parse_reservation);
  if (auto luns =
          asker.ask([](const LogicalUnit& of, ScsiTask& task,
                       std::span<std::byte> buffer) { of.prepare_report_luns(task, buffer); },
                    parse_report_luns)) {
    info.luns = std::move(*luns);
  }
  if (asker.lost()) {
    return fail(ErrorCode::unavailable, "the connection was lost while the LUN was asked");
  }
  return info;
}

PrintableLines info_text(const LunexInfo& info) {
  const LogicalUnitIdentity& lun = info.identity;
  const NegotiatedParameters& login = info.login;
  const std::uint64_t sectors = lun.block_count * (lun.logical_block_bytes / kSectorBytes);
  PrintableLines text;
  const auto line = [&text](std::string_view name, const std::string& value) {
    text.add(fmt::format("{:<20} {}", name, value));
  };
  line("target", info.target_name);
  line("portal",
       login.target_portal_group_tag_known
           ? fmt::format("{}, portal group {}", info.portal, login.target_portal_group_tag)
           : info.portal);
  line("LUN",
       fmt::format("{} (the target has {})", info.lun, fmt::join(lun_texts(info.luns), ", ")));
  line("product",
       fmt::format("{} {}, revision {}", lun.vendor, lun.product, or_none(lun.revision)));
  line("serial number", or_none(lun.serial));
  line("identifier", or_none(lun.wwid));
  line("capacity", fmt::format("{} ({} blocks of {} bytes, physically {})", render_size(sectors),
                               lun.block_count, lun.logical_block_bytes, lun.physical_block_bytes));
  line("write-protected", yes_no(lun.write_protected));
  line("write cache", lun.write_cache == WriteCache::untold
                          ? "not told"
                          : yes_no(lun.write_cache == WriteCache::on));
  line("forced unit access", yes_no(lun.force_unit_access));
  line("thin provisioning", yes_no(lun.thin_provisioned));
  line("most per command", lun.max_transfer_blocks != 0
                               ? fmt::format("{} blocks", lun.max_transfer_blocks)
                               : "not limited");
  if (lun.limits.max_unmap_blocks != 0) {
    line("unmap",
         fmt::format("{} blocks in {} ranges at most, units of {}", lun.limits.max_unmap_blocks,
                     lun.limits.max_unmap_ranges, lun.limits.unmap_granularity_blocks));
  } else {
    line("unmap", yes_no(lun.provisioning.unmap));
  }
  line("write same", lun.limits.max_write_same_blocks != 0
                         ? fmt::format("{} blocks at most", lun.limits.max_write_same_blocks)
                         : "no limit told");
  line("port groups (ALUA)", tpgs_word(lun.tpgs));
  if (info.port_groups) {
    for (const TargetPortGroup& group : info.port_groups->groups) {
      line("", fmt::format("group {}: {}{}, ports {}", group.tag, to_string(group.state),
                           group.preferred ? ", preferred" : "", fmt::join(group.ports, ", ")));
    }
  }
  if (info.reservation && info.reservation->reservation) {
    line("reservation",
         fmt::format("{}, key {:#x}", reservation_word(info.reservation->reservation->type),
                     info.reservation->reservation->key));
  } else {
    line("reservation", info.reservation ? "none" : "not told");
  }
  if (info.reservation_keys && !info.reservation_keys->keys.empty()) {
    line("registered keys", fmt::format("{}", fmt::join(key_texts(*info.reservation_keys), ", ")));
  }
  line("login", fmt::format("header digest {}, data digest {}, InitialR2T={}, ImmediateData={}",
                            yes_no(login.digests.header), yes_no(login.digests.data),
                            login.initial_r2t ? "Yes" : "No", login.immediate_data ? "Yes" : "No"));
  line("",
       fmt::format("MaxBurstLength={}, FirstBurstLength={}, MaxOutstandingR2T={}",
                   login.max_burst_length, login.first_burst_length, login.max_outstanding_r2t));
  return text;
}

nlohmann::json info_json(const LunexInfo& info) {
  const LogicalUnitIdentity& lun = info.identity;
  nlohmann::json json = {{"target", info.target_name},
                         {"portal", info.portal},
                         {"lun", info.lun},
                         {"luns", lun_texts(info.luns)},
                         {"vendor", lun.vendor},
                         {"product", lun.product},
                         {"revision", lun.revision},
                         {"serial", lun.serial},
                         {"wwid", lun.wwid},
                         {"capacity_bytes", lun.block_count * lun.logical_block_bytes},
                         {"block_count", lun.block_count},
                         {"logical_block_bytes", lun.logical_block_bytes},
                         {"physical_block_bytes", lun.physical_block_bytes},
                         {"rotation_rate", lun.rotation_rate},
                         {"write_protected", lun.write_protected},
                         {"write_cache", lun.write_cache == WriteCache::untold
                                             ? nlohmann::json()
                                             : nlohmann::json(lun.write_cache == WriteCache::on)},
                         {"force_unit_access", lun.force_unit_access},
                         {"thin_provisioned", lun.thin_provisioned},
                         {"max_transfer_blocks", lun.max_transfer_blocks},
                         {"optimal_transfer_blocks", lun.limits.optimal_transfer_blocks},
                         {"unmap",
                          {{"supported", lun.provisioning.unmap},
                           {"max_blocks", lun.limits.max_unmap_blocks},
                           {"max_ranges", lun.limits.max_unmap_ranges},
                           {"granularity_blocks", lun.limits.unmap_granularity_blocks},
                           {"alignment_blocks", lun.limits.unmap_alignment_blocks},
                           {"reads_zeros", lun.provisioning.reads_zeros}}},
                         {"max_write_same_blocks", lun.limits.max_write_same_blocks},
                         {"tpgs", lun.tpgs},
                         {"login",
                          {{"HeaderDigest", info.login.digests.header ? "CRC32C" : "None"},
                           {"DataDigest", info.login.digests.data ? "CRC32C" : "None"},
                           {"InitialR2T", info.login.initial_r2t},
                           {"ImmediateData", info.login.immediate_data},
                           {"MaxRecvDataSegmentLength", info.login.max_recv_data_segment_length},
                           {"MaxSendDataSegmentLength", info.login.max_send_data_segment_length},
                           {"MaxBurstLength", info.login.max_burst_length},
                           {"FirstBurstLength", info.login.first_burst_length},
                           {"MaxOutstandingR2T", info.login.max_outstanding_r2t},
                           {"TargetAlias", info.login.target_alias}}}};
  if (info.login.target_portal_group_tag_known) {
    json["login"]["TargetPortalGroupTag"] = info.login.target_portal_group_tag;
  }
  json["port_groups"] = nlohmann::json::array();
  if (info.port_groups) {
    for (const TargetPortGroup& group : info.port_groups->groups) {
      json["port_groups"].push_back({{"tag", group.tag},
                                     {"state", to_string(group.state)},
                                     {"preferred", group.preferred},
                                     {"ports", group.ports}});
    }
  }
  json["reservation"] = nlohmann::json();
  if (info.reservation && info.reservation->reservation) {
    json["reservation"] = {{"type", reservation_word(info.reservation->reservation->type)},
                           {"key", fmt::format("{:#x}", info.reservation->reservation->key)}};
  }
  json["reservation_keys"] =
      info.reservation_keys ? key_texts(*info.reservation_keys) : std::vector<std::string>();
  return json;
}

}  // namespace iscsi_blkback
