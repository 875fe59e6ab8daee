#include "tests/support/fake_toolstack.h"

#include <fmt/format.h>

#include <charconv>

namespace iscsi_blkback {
namespace {

int state_at(MemXenStore& store, const std::string& path) {
  const Result<std::string> text = store.read(path + "/state");
  int state = 0;
  if (text) {
    std::from_chars(text->data(), text->data() + text->size(), state);
  }
  return state;
}

void put(XenStoreAccess& at, const std::string& path, const std::string& value) {
  ISCSI_BLKBACK_ASSERT(at.write(path, value).has_value());
}

}  // namespace

std::string FakeDisk::backend_path() const {
  return fmt::format("/local/domain/{}/backend/{}/{}/{}", backend, kind, guest, device_id);
}

std::string FakeDisk::frontend_path() const {
  return fmt::format("/local/domain/{}/device/vbd/{}", guest, device_id);
}

void FakeToolstack::add(const FakeDisk& disk) {
  using Access = MemXenStoreTree::Access;
  const std::string be = disk.backend_path();
  const std::string fe = disk.frontend_path();
  // The directories come first, with the permissions that their children inherit.
  put(*store_, be, "");
  put(*store_, fe, "");
  ISCSI_BLKBACK_ASSERT(
      store_->set_permissions(be, {disk.backend, Access::none, {{disk.guest, Access::read}}}));
  ISCSI_BLKBACK_ASSERT(
      store_->set_permissions(fe, {disk.guest, Access::none, {{disk.backend, Access::read}}}));
  const Result<void> done = store_->transaction([&](XenStoreAccess& at) -> Result<void> {
    put(at, be + "/frontend", fe);
    put(at, be + "/frontend-id", std::to_string(disk.guest));
    put(at, be + "/params", disk.params);
    put(at, be + "/online", "1");
    put(at, be + "/removable", disk.device_type == "cdrom" ? "1" : "0");
    put(at, be + "/bootable", "1");
    put(at, be + "/dev", disk.virtual_device);
    put(at, be + "/type", disk.kind);
    put(at, be + "/mode", disk.mode);
    put(at, be + "/device-type", disk.device_type);
    put(at, be + "/discard-enable", disk.discards ? "1" : "0");
    put(at, be + "/specification", "xen");
    put(at, fe + "/backend", be);
    put(at, fe + "/backend-id", std::to_string(disk.backend));
    put(at, fe + "/virtual-device", std::to_string(disk.device_id));
    put(at, fe + "/device-type", disk.device_type);
    put(at, fe + "/trusted", "1");
    put(at, fe + "/state", "1");
    put(at, be + "/state", "1");
    return {};
  });
  ISCSI_BLKBACK_ASSERT(done.has_value());
}

void FakeToolstack::request_detach(const FakeDisk& disk) {
  const std::string be = disk.backend_path();
  const Result<void> done = store_->transaction([&](XenStoreAccess& at) -> Result<void> {
    const Result<std::string> state = at.read(be + "/state");
    if (!state) {
      return {};
    }
    put(at, be + "/online", "0");
    if (*state != "6") {
      put(at, be + "/state", "5");
    }
    return {};
  });
  ISCSI_BLKBACK_ASSERT(done.has_value());
}

void FakeToolstack::force_detach(const FakeDisk& disk) {
  (void)store_->remove(disk.frontend_path());
  request_detach(disk);
}

void FakeToolstack::close_for_backend(const FakeDisk& disk) {
  if (backend_state(disk) != 0) {
    ISCSI_BLKBACK_ASSERT(store_->write(disk.backend_path() + "/state", "6").has_value());
  }
}

void FakeToolstack::remove(const FakeDisk& disk) {
  (void)store_->remove(disk.frontend_path());
  (void)store_->remove(disk.backend_path());
}

int FakeToolstack::backend_state(const FakeDisk& disk) {
  return state_at(*store_, disk.backend_path());
}

int FakeToolstack::frontend_state(const FakeDisk& disk) {
  return state_at(*store_, disk.frontend_path());
}

std::string FakeToolstack::backend_value(const FakeDisk& disk, const std::string& key) {
  return store_->read(disk.backend_path() + "/" + key).value_or(std::string());
}

}  // namespace iscsi_blkback
