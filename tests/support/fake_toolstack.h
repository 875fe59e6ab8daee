// FakeToolstack: what libxl does in xenstore for one disk: makes the nodes of both ends with their
// permissions, asks for a detach, destroys. Acts as domain 0. (libxl_disk.c, libxl_device.c.)
#pragma once

#include <memory>
#include <string>

#include "tests/support/mem_xen.h"

namespace iscsi_blkback {

struct FakeDisk {
  DomainId guest = 1;
  DomainId backend = 0;
  std::uint32_t device_id = 51712;
  std::string virtual_device = "xvda";
  std::string kind = "qdisk";  // or "vbd3", or another's "vbd"
  std::string params;          // "aio:iscsi:..."
  std::string mode = "w";
  std::string device_type = "disk";
  bool discards = true;

  [[nodiscard]] std::string backend_path() const;
  [[nodiscard]] std::string frontend_path() const;
};

class FakeToolstack {
 public:
  explicit FakeToolstack(MemXen& xen) : store_(xen.store().connect(0)) {}

  // One transaction; both states are 1 then.
  void add(const FakeDisk& disk);
  // xl block-detach of a running guest: online=0 and state=5 (unless it is 6).
  void request_detach(const FakeDisk& disk);
  // xl block-detach --force and xl destroy: as above, with the frontend's directory removed first.
  void force_detach(const FakeDisk& disk);
  // Of a guest that is paused, dying or shut down: libxl asks nobody, but writes state 6 by itself
  // after two seconds.
  void close_for_backend(const FakeDisk& disk);
  // After state 6, or when libxl gave up waiting.
  void remove(const FakeDisk& disk);

  [[nodiscard]] int backend_state(const FakeDisk& disk);  // 0: no such node
  [[nodiscard]] int frontend_state(const FakeDisk& disk);
  // A node below the backend's; empty when it is not there.
  [[nodiscard]] std::string backend_value(const FakeDisk& disk, const std::string& key);
  [[nodiscard]] MemXenStore& store() { return *store_; }

 private:
  std::unique_ptr<MemXenStore> store_;
};

}  // namespace iscsi_blkback
