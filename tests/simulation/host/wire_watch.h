// WireWatch: sees every SCSI command from where an initiator hands it to the kernel to where a
// target has executed it, or never will. So it can say when a process has sent a write, and whether
// writes that one host has sent to a LUN may still take effect.
//
// It reads the bytes by itself, with nothing of the product's.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "tests/support/sim_connection.h"
#include "tests/support/sim_network.h"
#include "tests/support/sim_reactor.h"
#include "tests/support/sim_target.h"

namespace iscsi_blkback {

class WireWatch final : public SimNetwork::Tap {
 public:
  class Owner {
   public:
    // Number of the target that this link leads to.
    [[nodiscard]] virtual std::size_t target_at(const std::string& link) const = 0;
    // A process hands a write command to the kernel.
    virtual void on_write_sent(const SimReactor& sender, std::size_t target, std::uint16_t lun) = 0;
    virtual void on_command_arrived(std::size_t target, const SimCommand& command) = 0;
    // A process sends LOGICAL UNIT RESET.
    virtual void on_lun_reset(const SimReactor& sender, std::uint16_t lun) = 0;
    // terminated: how many tasks it has ended. by_sibling: at another portal than the sessions of
    // that ISID usually come to.
    virtual void on_login(std::size_t terminated, bool by_sibling) = 0;

   protected:
    ~Owner() = default;
  };

  // late_limit: a command is never executed so long after its initiator's end has gone.
  WireWatch(SimReactor& reactor, Duration late_limit, Owner& owner)
      : reactor_(reactor), late_limit_(late_limit), owner_(owner) {}

  // For the target of that number.
  [[nodiscard]] SimTargetObserver& observer_of(std::size_t target);

  // Whether no write that this computer has sent to the LUN up to that time can take effect any
  // more.
  [[nodiscard]] bool writes_over(unsigned computer, std::size_t target, std::uint16_t lun,
                                 TimePoint sent_until);

 private:
  static constexpr std::size_t kHeaderBytes = 48;

  struct Command {
    std::uint16_t lun = 0;
    TimePoint sent_at{};
    bool arrived = false;  // at the target, with all its data
  };
  struct Connection {
    std::size_t target = 0;
    unsigned computer = 0;
    std::shared_ptr<const SimConnection> wire;
    bool gone = false;                        // at the target
    std::map<std::uint32_t, Command> writes;  // that may still take effect, by task tag
    // Where the reader is in the stream.
    std::array<std::uint8_t, kHeaderBytes> header{};
    std::size_t header_bytes = 0;
    std::size_t skip_bytes = 0;
  };

  class TargetObserver final : public SimTargetObserver {
   public:
    TargetObserver(WireWatch& watch, std::size_t target) : watch_(watch), target_(target) {}
    void on_login(std::uint64_t connection, std::size_t portal, const Isid& isid,
                  std::size_t terminated) override;
    void on_command(std::uint64_t connection, std::uint32_t tag,
                    const SimCommand& command) override;
    void on_command_over(std::uint64_t connection, std::uint32_t tag) override;
    void on_connection_gone(std::uint64_t connection) override;

   private:
    WireWatch& watch_;
    const std::size_t target_;
    std::map<Isid, std::size_t> portals_;  // where each ISID has come to first
  };

  void on_client_sends(SimConnection& connection, SimReactor& sender,
                       std::span<const iovec> parts) override;
  void on_header(Connection& connection, const SimReactor& sender);
  [[nodiscard]] Connection* find(std::uint64_t number);
  void forget_old_connections();

  SimReactor& reactor_;
  const Duration late_limit_;
  Owner& owner_;
  std::map<std::size_t, std::unique_ptr<TargetObserver>> observers_;
  std::map<std::uint64_t, Connection> connections_;  // by number
};

}  // namespace iscsi_blkback
