// RegistrationTable: where the disks of a process hear of each other's registrations for persistent
// reservations. A registration is one nexus's at one logical unit (SPC-4 5.13), and disks share
// sessions: what another disk still relies on must not be taken back, and what was taken back late
// has to be registered anew. Part of SharedFencing, outlives all sessions. Reactor thread.
#pragma once

#include <cstdint>
#include <vector>

#include "initiator/session/session.h"

namespace iscsi_blkback {

class RegistrationTable {
 public:
  // A disk.
  class Client {
   public:
    // Whether it still relies on what it has registered there.
    [[nodiscard]] virtual bool needs_key(const Session& session,
                                         std::uint16_t lun) const noexcept = 0;
    // A command that takes a registration back has ended there, for a path that was removed.
    virtual void on_key_taken_back(const Session& session, std::uint16_t lun) noexcept = 0;

   protected:
    ~Client() = default;
  };

  RegistrationTable() = default;
  ~RegistrationTable() { ISCSI_BLKBACK_ASSERT(clients_.empty()); }
  RegistrationTable(const RegistrationTable&) = delete;
  RegistrationTable& operator=(const RegistrationTable&) = delete;

  void add(Client& client) { clients_.push_back(&client); }
  void remove(Client& client) { std::erase(clients_, &client); }

  // Whether another client than the one asking does; see Client::needs_key().
  [[nodiscard]] bool other_needs_key(const Session& session, std::uint16_t lun,
                                     const Client& asking) const;
  // Tells all clients.
  void key_taken_back(const Session& session, std::uint16_t lun);

 private:
  std::vector<Client*> clients_;
};

}  // namespace iscsi_blkback
