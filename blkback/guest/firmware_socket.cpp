#include "blkback/guest/firmware_socket.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <filesystem>
#include <span>
#include <system_error>

#include "base/crc32c.h"
#include "blkback/nbd/nbd_socket.h"

namespace iscsi_blkback {
namespace {

std::string name_begins(DomainId guest) {
  return fmt::format("nbd-{}-", guest);
}

std::string firmware_socket_path(const std::string& run_directory, DomainId guest,
                                 const FirmwareDrive& drive) {
  return fmt::format("{}/{}{}-{:08x}.sock", run_directory, name_begins(guest), drive.device_id,
                     drive.tag);
}

}  // namespace

FirmwareDrive FirmwareDrive::of(std::uint32_t device_id, std::string_view params) {
  return {device_id, crc32c(std::as_bytes(std::span(params)))};
}

// Since 4.19 libxl makes of it "nbd+unix:///?socket=PATH", and that QEMU's option file=. What is behind the
// comma is an option of its own: QEMU connects again for so long, after us or our next process, and sends what
// was not answered once more. Without it that would be an error of the guest's drive.
std::string firmware_device_path(const std::string& run_directory, DomainId guest,
                                 const FirmwareDrive& drive) {
  return fmt::format("{},file.reconnect-delay={}",
                     firmware_socket_path(run_directory, guest, drive),
                     kFirmwareReconnectDelay.count());
}

bool is_firmware_device_path(std::string_view text, const std::string& run_directory,
                             DomainId guest, std::uint32_t device_id) {
  FirmwareDrive drive{device_id, 0};
  const std::string first = firmware_device_path(run_directory, guest, drive);
  if (text.size() != first.size()) {
    return false;
  }
  const std::string_view tag = text.substr(first.rfind("-00000000.sock") + 1, 8);
  (void)std::from_chars(tag.data(), tag.data() + tag.size(), drive.tag, 16);
  return text == firmware_device_path(run_directory, guest, drive);
}

Result<UniqueFd> OwnFirmwareSockets::open(const FirmwareDrive& drive) {
  if (open_.size() == kMost && !open_.contains(drive)) {
    return fail(ErrorCode::conflict,
                fmt::format("the guest's device model has {} of its disks already", kMost));
  }
  auto socket = listen_nbd(firmware_socket_path(run_directory_, guest_, drive));
  if (socket) {
    open_.insert(drive);
  }
  return socket;
}

void OwnFirmwareSockets::remove(const FirmwareDrive& drive) {
  open_.erase(drive);
  ::unlink(firmware_socket_path(run_directory_, guest_, drive).c_str());
}

void OwnFirmwareSockets::remove_all() {
  std::error_code failed;
  for (std::filesystem::directory_iterator at(run_directory_, failed), end; !failed && at != end;
       at.increment(failed)) {
    if (at->path().filename().string().starts_with(name_begins(guest_))) {
      ::unlink(at->path().c_str());
    }
  }
  open_.clear();
}

Result<FirmwareSocket> FirmwareSocket::open(FirmwareSockets& sockets, const FirmwareDrive& drive) {
  auto listening = sockets.open(drive);
  if (!listening) {
    return tl::unexpected(listening.error());
  }
  return FirmwareSocket(sockets, drive, std::move(*listening));
}

FirmwareSocket::~FirmwareSocket() {
  if (sockets_ != nullptr) {
    sockets_->remove(drive_);
  }
}

Result<UniqueFd> FirmwareSocket::server_end() const {
  UniqueFd end(::fcntl(listening_.get(), F_DUPFD_CLOEXEC, 0));
  if (!end.valid()) {
    return tl::unexpected(system_error("the socket of the guest's firmware", errno));
  }
  return end;
}

}  // namespace iscsi_blkback
