#include "multipath/path/registration_table.h"

#include <algorithm>

namespace iscsi_blkback {

bool RegistrationTable::other_needs_key(const Session& session, std::uint16_t lun,
                                        const Client& asking) const {
  return std::any_of(clients_.begin(), clients_.end(), [&](const Client* client) {
    return client != &asking && client->needs_key(session, lun);
  });
}

void RegistrationTable::key_taken_back(const Session& session, std::uint16_t lun) {
  for (Client* client : clients_) {
    client->on_key_taken_back(session, lun);
  }
}

}  // namespace iscsi_blkback
