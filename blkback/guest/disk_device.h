// DiskDevice: a disk's device (its paths and sessions, which the I/O side has) as the control side
// sees it: planned from the disk line and the configuration, its portals looked up, opened, closed
// and opened again, each time with the wishes of the operator. Owned by GuestDisk, control thread
// only. Every wait for the I/O side is bounded.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/reactor.h"
#include "blkback/guest/data_plane.h"
#include "blkback/guest/disk_change.h"
#include "blkback/guest/firmware_socket.h"
#include "blkback/guest/runtime_overrides.h"
#include "blkback/guest/statistics_folder.h"
#include "blkback/guest/xenbus_node.h"
#include "multipath/attach/configuration.h"
#include "multipath/attach/disk_config.h"
#include "multipath/attach/path_discovery.h"

namespace iscsi_blkback {

// What a disk of a guest works with; outlives it.
struct DiskEnvironment {
  Reactor& control;
  DataPlane& data_plane;
  PathDiscovery& resolver;
  const Configuration& configuration;
  LogLimiter& all_log;                     // of the guest
  StatisticsFolder* statistics = nullptr;  // null: there are none for others to read
  FirmwareSockets* firmware = nullptr;     // null: no firmware boots from them
};

// Whose disk it is: hears what its device and its ring have to say.
class DiskOwner {
 public:
  // Something that decides what is due has changed.
  virtual void on_change() = 0;
  // The same, because of what keeps the disk from being served, one sentence; empty: nothing does
  // any more.
  virtual void on_error(const std::string& sentence) = 0;
  // The same, because the device is closed, or closed and opened again. It may be destroyed from
  // inside.
  virtual void on_device_closed() = 0;

 protected:
  ~DiskOwner() = default;
};

class DiskDevice final : private DiskEvents {
 public:
  // name: for the log. description: the disk's, which outlives this.
  DiskDevice(const DiskEnvironment& environment, DiskOwner& owner, DiskHandle handle,
             std::string name, const DiskDescription& description);
  DiskDevice(const DiskDevice&) = delete;
  DiskDevice& operator=(const DiskDevice&) = delete;

  // State 6 waits for the device to be closed, but not longer: libxl gives up after 10 s.
  static constexpr std::chrono::milliseconds kCloseTimeout{6000};
  static constexpr std::chrono::milliseconds kRetryMin{1000};
  // A first look-up that fails is no trouble yet, unless it has taken so long.
  static constexpr std::chrono::seconds kLongLookup{10};
  static constexpr std::chrono::milliseconds kRetryMax{30000};

  [[nodiscard]] bool is_open() const { return phase_ == Phase::open; }
  [[nodiscard]] bool closing() const { return phase_ == Phase::closing; }
  // closing, and the toolstack may still wait for it.
  [[nodiscard]] bool worth_waiting_for() const { return closing() && !close_overdue_; }
  [[nodiscard]] bool ready() const { return is_open() && geometry_.has_value(); }
  // Known from the time it is ready until it is closed.
  [[nodiscard]] const std::optional<Geometry>& geometry() const { return geometry_; }
  // From then on.
  [[nodiscard]] const std::optional<LunNames>& names() const { return names_; }
  // What a guest is told that its sectors are.
  [[nodiscard]] std::uint32_t sector_size() const { return config_.sector_size; }
  // The device model of an HVM guest has it at its socket, or will have; nothing: it is not known yet.
  [[nodiscard]] std::optional<bool> is_offered_to_firmware() const {
    return firmware_socket_ || not_for_firmware_ ? std::optional(firmware_socket_.has_value())
                                                 : std::nullopt;
  }
  // The target can never be used as it is written, here and in the configuration.
  [[nodiscard]] bool refused() const { return refused_; }
  // What is written may hold a secret.
  [[nodiscard]] bool unreadable() const { return unreadable_; }

  // Unless it is there or refused.
  void open();
  // abandon: see DiskPort.
  void close(bool abandon);
  // And opens again when that is done.
  void reopen();
  // When it closes, another process has a device of this LUN for the guest soon.
  void keep_place();
  // No other life follows, and nobody waits.
  void end();
  // The guest has ended: what is being closed is abandoned.
  void guest_ended();

  // See DiskPort; holds for what is opened later, too.
  void set_read_only(bool read_only);

  // Ready only; see DiskPort.
  void connect_ring(FrontendRing ring, RingEvents& events);
  // abandon closes the device as well.
  void disconnect_ring(RingEnd end);
  // From now on a guest knows what it is, which it stays: paths that lead elsewhere are quarantined.
  void on_published() { published_ = true; }

  // What an operator asks holds until the guest's process ends. done: on the control thread, perhaps
  // from inside; never called if the reactor does not answer. The error is one sentence.
  using Changed = std::function<void(Result<void>)>;
  void change(const DiskChange::What& what, Changed done);

 private:
  enum class Phase : std::uint8_t { none, resolving, open, closing };
  enum class AfterClose : std::uint8_t { nothing, open, open_later };

  // DiskEvents.
  void on_ready(const Geometry& geometry, const LunNames& names) override;
  void on_conflict(const std::string& why) override;
  void on_grown(const Geometry& geometry) override;
  void on_unavailable(const std::string& why) override;
  void on_closed() override;

  [[nodiscard]] Result<DiskConfig> make_config();
  void refuse(const std::string& why);
  void look_up();
  void on_resolved(Result<ResolvedDisk> result);
  void retry();
  void retry_later();
  void begin_to_close();
  void listen_for_firmware();
  void offer_to_firmware(const Geometry& geometry);
  void withdraw_from_firmware();
  void do_not_offer(const std::string& why);
  void on_close_overdue();
  void carry_out(const SetNoPathRetry& change, const Changed& done);
  void carry_out(const RestoreNoPathRetry& change, const Changed& done);
  void carry_out(const SetPolicies& change, const Changed& done);
  void carry_out(const AddPath& change, const Changed& done);
  void carry_out(const RemovePath& change, const Changed& done);
  void set_no_path_retry(std::optional<NoPathRetry> wait);
  void add_paths(const std::vector<ResolvedPortal>& paths, const Changed& done);

  const DiskEnvironment environment_;
  DiskOwner& owner_;
  const DiskHandle handle_;
  const std::string name_;
  const DiskDescription& description_;
  Phase phase_ = Phase::none;
  std::unique_ptr<DiskPort> port_;  // while it is open or closing
  bool published_ = false;
  bool read_only_ = false;  // whatever it was opened for
  bool refused_ = false;
  bool unreadable_ = false;
  AfterClose after_close_ = AfterClose::nothing;
  bool close_overdue_ = false;
  std::optional<Geometry> geometry_;
  // What the first life has found the disk to be, so that its guest finds no other LUN in a later
  // one, whatever the array shows there by then.
  std::optional<LunNames> names_;
  // Through all of its lives.
  std::optional<FirmwareSocket> firmware_socket_;
  bool not_for_firmware_ = false;
  DiskConfig config_;
  RuntimeOverrides overrides_;
  std::chrono::milliseconds retry_delay_ = kRetryMin;
  std::uint32_t failed_lookups_ = 0;  // in a row
  TimePoint lookup_began_{};
  LogLimiter portals_log_;
  LogLimiter close_log_;
  LogLimiter firmware_log_;
  Timer retry_timer_;
  Timer close_timer_;
  const std::shared_ptr<void> alive_ = std::make_shared<bool>();  // answers may come after this
};

}  // namespace iscsi_blkback
