#include "bench/failover_target.h"

#include <fmt/format.h>

#include <csignal>
#include <utility>

#include "bench/null_target.h"
#include "tests/support/tgt_process.h"

namespace iscsi_blkback {
namespace {

class MemoryTarget final : public FailoverTarget {
 public:
  [[nodiscard]] static Result<std::unique_ptr<FailoverTarget>> start(bool another,
                                                                     bool port_groups) {
    NullTargetOptions options = null_target_defaults();
    options.lun.block_count = 64 * 2048;
    if (another) {
      options.lun.serial = "ANOTHER";
      options.lun.naa_extension += 1;
    }
    if (port_groups) {
      options.portals = 2;
      options.lun.tpgs = 1;  // implicit
      options.lun.port_groups = {
          {.tag = 1,
           .state = AccessState::active_optimized,
           .supported_states = 0x05,
           .ports = {1}},
          {.tag = 2, .state = AccessState::standby, .supported_states = 0x05, .ports = {2}}};
    }
    auto process = NullTargetProcess::start(options, -1);
    if (!process) {
      return tl::unexpected(process.error());
    }
    auto target = std::make_unique<MemoryTarget>();
    target->name_ = options.settings.protocol.name;
    target->process_ = std::move(*process);
    return target;
  }
  [[nodiscard]] std::uint16_t port(std::size_t path) const override {
    return process_->ports()[path % process_->ports().size()];
  }
  [[nodiscard]] std::string url_end() const override { return name_ + "/0"; }
  void stop() override { process_->stop(); }
  void go_on() override { process_->go_on(); }
  void swap_port_groups() override { process_->swap_port_groups(); }

 private:
  std::string name_;
  std::unique_ptr<NullTargetProcess> process_;
};

class Tgt final : public FailoverTarget {
 public:
  [[nodiscard]] static Result<std::unique_ptr<FailoverTarget>> start(bool another,
                                                                     std::size_t portals) {
    auto target = std::make_unique<Tgt>();
    auto started = target->process_.start(
        {.disk_bytes = std::uint64_t{64} << 20, .filled = true, .portals = portals});
    if (started && another) {  // each tgtd gives its first LUN the same identity
      started = target->process_.administer({"--op", "update", "--mode", "logicalunit", "--tid",
                                             "1", "--lun", "1", "--params",
                                             "scsi_id=another,scsi_sn=another"});
    }
    if (!started) {
      return tl::unexpected(started.error());
    }
    return target;
  }
  [[nodiscard]] std::uint16_t port(std::size_t path) const override { return process_.port(path); }
  [[nodiscard]] std::string url_end() const override {
    return fmt::format("{}/{}", TgtProcess::kTargetName, TgtProcess::kLun);
  }
  void stop() override { process_.signal(SIGSTOP); }
  void go_on() override { process_.signal(SIGCONT); }
  void swap_port_groups() override {}  // it has none

 private:
  TgtProcess process_;
};

}  // namespace

Result<std::unique_ptr<FailoverTarget>> start_memory_target(bool another, bool port_groups) {
  return MemoryTarget::start(another, port_groups);
}

Result<std::unique_ptr<FailoverTarget>> start_tgt(bool another, std::size_t portals) {
  return Tgt::start(another, portals);
}

}  // namespace iscsi_blkback
