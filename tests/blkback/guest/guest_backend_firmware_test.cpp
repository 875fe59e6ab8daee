// The disk of an HVM guest's firmware: what libxl finds in xenstore for the device model, and what that
// gets from the NBD socket, whose client here is a real one. See guest_backend_fixture.h.
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/unique_fd.h"
#include "tests/blkback/guest/guest_backend_fixture.h"
#include "tests/support/fake_nbd_client.h"

namespace iscsi_blkback {
namespace {

using testing::HasSubstr;

constexpr std::size_t kHandshakeBytes = 18 + 86;

class GuestBackendFirmware : public GuestBackendTest {
 protected:
  GuestBackendFirmware() { EXPECT_TRUE(toolstack_.store().write("/libxl/5/type", "hvm")); }

  [[nodiscard]] std::string socket_path(const std::string& params = kParams) const {
    const FirmwareDrive drive = FirmwareDrive::of(51712, params);
    return barriers_ / fmt::format("nbd-5-51712-{:08x}.sock", drive.tag);
  }
  std::string device_path(const FakeDisk& disk) {
    return toolstack_.backend_value(disk, "physical-device-path");
  }
  FakeDisk boot_disk() { return disk(kParams, 51712, "vbd3"); }
  // Served as far as libxl's script waits for it; there is no frontend yet.
  FakeDisk offer(const FakeDisk& offered) {
    toolstack_.add(offered);
    start();
    EXPECT_TRUE(is_connected(offered)) << xen_.store().dump();
    return offered;
  }
  bool is_connected(const FakeDisk& offered) {
    return run_until(
        [&] { return toolstack_.backend_value(offered, "hotplug-status") == "connected"; });
  }

  void connect_nbd() {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = socket_path();
    ASSERT_LT(path.size(), sizeof address.sun_path);
    std::memcpy(address.sun_path, path.data(), path.size());
    client_.reset(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    ASSERT_EQ(::connect(client_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
              0)
        << std::strerror(errno);
    tell(NbdWriter().u32(3).append(nbd_option(7, nbd_go_data())).bytes);
  }
  void tell(const NbdBytes& bytes) {
    ASSERT_EQ(::send(client_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  bool look() {
    std::byte buffer[4096];
    ssize_t count = 0;
    while ((count = recv(client_.get(), buffer, sizeof buffer, 0)) > 0) {
      heard_.insert(heard_.end(), buffer, buffer + count);
    }
    dropped_ = dropped_ || count == 0 || errno != EAGAIN;
    return dropped_;
  }
  // Empty: they do not come.
  NbdBytes hear(std::size_t bytes, Duration at_most = 20s) {
    if (!run_until([&] { return look() || heard_.size() >= bytes; }, at_most) ||
        heard_.size() < bytes) {
      return {};
    }
    const auto end = heard_.begin() + static_cast<std::ptrdiff_t>(bytes);
    NbdBytes taken(heard_.begin(), end);
    heard_.erase(heard_.begin(), end);
    return taken;
  }
  void open_nbd() {
    ASSERT_NO_FATAL_FAILURE(connect_nbd());
    ASSERT_FALSE(hear(kHandshakeBytes).empty());
  }
  void write_nbd(std::uint64_t sector, const NbdBytes& data) {
    tell(nbd_request(1, 7, sector * 512, static_cast<std::uint32_t>(data.size()), 0, data));
  }
  void expect_written() {
    const NbdBytes reply = hear(16);
    ASSERT_FALSE(reply.empty());
    EXPECT_EQ(load_be32(reply.data() + 4), 0U);
  }
  NbdBytes read_nbd(std::uint64_t sector, std::uint32_t sectors) {
    tell(nbd_request(0, 8, sector * 512, sectors * 512));
    const NbdBytes reply = hear(16 + sectors * 512);
    return reply.empty() ? reply : NbdBytes(reply.begin() + 16, reply.end());
  }

  UniqueFd client_;
  NbdBytes heard_;
  bool dropped_ = false;
};

TEST_F(GuestBackendFirmware, TheDiskIsThereBeforeTheGuestHasAFrontend) {
  const FakeDisk xvda = offer(boot_disk());
  EXPECT_EQ(device_path(xvda), socket_path() + ",file.reconnect-delay=120");
  struct stat status {};
  ASSERT_EQ(stat(socket_path().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0600U);
  ASSERT_NO_FATAL_FAILURE(open_nbd());
  const auto data = pattern(16, 3);
  write_nbd(64, data);
  ASSERT_NO_FATAL_FAILURE(expect_written());
  EXPECT_EQ(read_nbd(64, 16), data);
}

TEST_F(GuestBackendFirmware, TheRingHasTheSameDiskBesideIt) {
  const FakeDisk xvda = offer(boot_disk());
  ASSERT_NO_FATAL_FAILURE(open_nbd());
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  ASSERT_NO_FATAL_FAILURE(write(guest, 64, pattern(16, 1)));
  EXPECT_EQ(read_nbd(64, 16), pattern(16, 1));
  write_nbd(72, pattern(4, 2));
  ASSERT_NO_FATAL_FAILURE(expect_written());
  ASSERT_NO_FATAL_FAILURE(expect_read(guest, 72, pattern(4, 2)));
}

TEST_F(GuestBackendFirmware, ADiskThatIsMadeReadOnlyIsReadOnlyForTheFirmwareToo) {
  const FakeDisk xvda = offer(boot_disk());
  ASSERT_NO_FATAL_FAILURE(open_nbd());
  ASSERT_TRUE(toolstack_.store().write(xvda.backend_path() + "/mode", "r"));
  run_for(1s);
  write_nbd(64, pattern(1, 5));
  const NbdBytes reply = hear(16);
  ASSERT_FALSE(reply.empty());
  EXPECT_EQ(load_be32(reply.data() + 4), 1U);
}

// Parts of the same block, which one aligner keeps from undoing each other.
TEST_F(GuestBackendFirmware, SectorsOfA4KnLunAreTheRingsAndTheFirmwares) {
  target_.add_lun(
      1, std::make_shared<SimLun>(SimLunOptions{.block_count = 1000, .block_bytes = 4096}));
  const FakeDisk xvda = offer(boot_disk());
  ASSERT_NO_FATAL_FAILURE(open_nbd());
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  write_nbd(64, pattern(1, 1));
  const auto id = guest.write(65, pattern(1, 2));
  ASSERT_TRUE(id);
  guest.push();
  ASSERT_NO_FATAL_FAILURE(expect_answer(guest, *id));
  ASSERT_NO_FATAL_FAILURE(expect_written());
  EXPECT_EQ(read_nbd(64, 1), pattern(1, 1));
  EXPECT_EQ(read_nbd(65, 1), pattern(1, 2));
}

// Design rule: nothing that could undo another's write is sent for a guest that may go on elsewhere.
TEST_F(GuestBackendFirmware, NoWriteOfASuspendedGuestIsSentAndItsFlushIs) {
  (void)offer(boot_disk());
  ASSERT_NO_FATAL_FAILURE(open_nbd());
  const auto before = read_nbd(64, 1);
  xen_.set_domain(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::suspend});
  xen_.store().fire_special("@releaseDomain");
  run_for(1s);
  write_nbd(64, pattern(1, 4));
  EXPECT_TRUE(hear(16, 5s).empty());
  EXPECT_FALSE(dropped_);
  // Before libxl saves it, its device model flushes, and cannot be asked for anything until that is answered.
  tell(nbd_request(3, 9, 0, 0));
  const NbdBytes flushed = hear(16);
  ASSERT_FALSE(flushed.empty());
  EXPECT_EQ(load_be32(flushed.data() + 4), 0U);
  EXPECT_EQ(load_be64(flushed.data() + 8), 9U);
  xen_.set_domain(kGuest, DomainStatus{DomainLife::running, {}});
  ASSERT_NO_FATAL_FAILURE(expect_written());
  EXPECT_EQ(read_nbd(64, 1), pattern(1, 4));
}

// QEMU keeps what was not answered, and connects again.
TEST_F(GuestBackendFirmware, AProcessThatEndsAnswersNothingAndTheNextOneListensAtTheSamePath) {
  const FakeDisk xvda = offer(boot_disk());
  ASSERT_NO_FATAL_FAILURE(open_nbd());
  hold_writes(true);
  write_nbd(64, pattern(1, 5));
  run_for(100ms);
  backend_->stop();
  ASSERT_TRUE(ends(100s));
  (void)look();
  EXPECT_TRUE(dropped_);
  EXPECT_TRUE(heard_.empty());
  EXPECT_FALSE(std::filesystem::exists(socket_path()));
  forget_process();
  target_.clear_faults();
  target_.release_held();
  dropped_ = false;
  start();
  ASSERT_TRUE(run_until([&] { return std::filesystem::exists(socket_path()); }, 100s));
  ASSERT_NO_FATAL_FAILURE(open_nbd());
  write_nbd(64, pattern(1, 6));
  ASSERT_NO_FATAL_FAILURE(expect_written());
  EXPECT_EQ(read_nbd(64, 1), pattern(1, 6));
  EXPECT_EQ(device_path(xvda), socket_path() + ",file.reconnect-delay=120");
}

TEST_F(GuestBackendFirmware, ADetachEndsIt) {
  const FakeDisk xvda = offer(boot_disk());
  ASSERT_NO_FATAL_FAILURE(open_nbd());
  toolstack_.force_detach(xvda);
  EXPECT_TRUE(run_until([&] { return look(); }));
  toolstack_.remove(xvda);
  EXPECT_TRUE(run_until([&] { return !std::filesystem::exists(socket_path()); }));
}

// QEMU flushes before it ends; of a connection that is lost it would wait for the next one.
TEST_F(GuestBackendFirmware, TheDeviceModelOfAGuestThatHasEndedHasAnErrorAtOnce) {
  (void)offer(boot_disk());
  ASSERT_NO_FATAL_FAILURE(open_nbd());
  hold_writes(true);
  write_nbd(64, pattern(1, 4));
  run_for(100ms);
  xen_.set_domain(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::poweroff});
  xen_.store().fire_special("@releaseDomain");
  run_for(1s);
  tell(nbd_request(3, 9, 0, 0));
  for (int replies = 0; replies < 2; ++replies) {
    const NbdBytes reply = hear(16, 3s);
    ASSERT_FALSE(reply.empty());
    EXPECT_EQ(load_be32(reply.data() + 4), 5U);
  }
  EXPECT_FALSE(dropped_);
  EXPECT_TRUE(run_until([&] { return look(); }, 20s)) << "it does not stay for ever";
}

// The device model waits there as long as the LUN does.
TEST_F(GuestBackendFirmware, TheSocketIsThereBeforeTheLunIs) {
  target_.remove_lun(1);
  const FakeDisk xvda = boot_disk();
  toolstack_.add(xvda);
  start();
  ASSERT_TRUE(run_until([&] { return !device_path(xvda).empty(); }));
  EXPECT_EQ(toolstack_.backend_value(xvda, "hotplug-status"), "");
  ASSERT_NO_FATAL_FAILURE(connect_nbd());
  run_for(5s);
  EXPECT_FALSE(look());
  target_.add_lun(1, std::make_shared<SimLun>(SimLunOptions{.block_count = 100'000}));
  EXPECT_FALSE(hear(kHandshakeBytes, 60s).empty());
}

// QEMU does not look what disk it has found when it connects again.
TEST_F(GuestBackendFirmware, AnotherTargetIsAtAnotherPath) {
  const std::string other = std::string(kParams) + "?lun=2";
  EXPECT_NE(socket_path(), socket_path(other));
  EXPECT_EQ(socket_path(), socket_path(kParams));
}

// As it is after an operator has made it read-only: libxl's refusal of such drives is over by then.
TEST_F(GuestBackendFirmware, TheNextProcessServesADiskThatWasMadeReadOnlyMeanwhile) {
  const FakeDisk xvda = offer(boot_disk());
  ASSERT_TRUE(toolstack_.store().write(xvda.backend_path() + "/mode", "r"));
  backend_->stop();
  ASSERT_TRUE(ends(100s));
  forget_process();
  start();
  ASSERT_TRUE(run_until([&] { return std::filesystem::exists(socket_path()); }, 100s));
  ASSERT_NO_FATAL_FAILURE(open_nbd());
  write_nbd(64, pattern(1, 5));
  const NbdBytes reply = hear(16);
  ASSERT_FALSE(reply.empty());
  EXPECT_EQ(load_be32(reply.data() + 4), 1U);
}

TEST_F(GuestBackendFirmware, ADiskWithLargeSectorsIsNotOffered) {
  target_.add_lun(
      1, std::make_shared<SimLun>(SimLunOptions{.block_count = 1000, .block_bytes = 4096}));
  configuration_.sector_size = 4096;
  const FakeDisk xvda = offer(boot_disk());
  EXPECT_EQ(device_path(xvda), "");
  EXPECT_FALSE(std::filesystem::exists(socket_path()));
}

TEST_F(GuestBackendFirmware, ASharedLunOf4KnIsNotOffered) {
  target_.add_lun(
      1, std::make_shared<SimLun>(SimLunOptions{.block_count = 1000, .block_bytes = 4096}));
  configuration_.multipath.shared = true;
  const FakeDisk xvda = offer(boot_disk());
  EXPECT_EQ(device_path(xvda), "");
  EXPECT_FALSE(std::filesystem::exists(socket_path()));
}

// A path that libxl and QEMU would cut in two.
TEST_F(GuestBackendFirmware, ARunDirectoryWithACommaIsNotOffered) {
  configuration_.run_directory = barriers_ / "a,b";
  std::filesystem::create_directory(configuration_.run_directory);
  const FakeDisk xvda = offer(boot_disk());
  EXPECT_EQ(device_path(xvda), "");
  EXPECT_TRUE(std::filesystem::is_empty(configuration_.run_directory));
}

struct NotForFirmware {
  const char* what;
  const char* type = "hvm";
  const char* kind = "vbd3";
  const char* mode = "w";
  const char* device_type = "disk";
  std::uint32_t device_id = 51712;
};

void PrintTo(const NotForFirmware& disk, std::ostream* out) {
  *out << disk.what;
}

class GuestBackendNotForFirmware : public GuestBackendFirmware,
                                   public testing::WithParamInterface<NotForFirmware> {};

TEST_P(GuestBackendNotForFirmware, ThereIsNoSocket) {
  ASSERT_TRUE(toolstack_.store().write("/libxl/5/type", GetParam().type));
  FakeDisk other = disk(kParams, GetParam().device_id, GetParam().kind);
  other.mode = GetParam().mode;
  other.device_type = GetParam().device_type;
  (void)offer(other);
  EXPECT_EQ(device_path(other), "");
  for (const auto& file : std::filesystem::directory_iterator(barriers_.path())) {
    EXPECT_THAT(file.path().filename().string(), testing::Not(HasSubstr("nbd")));
  }
}

INSTANTIATE_TEST_SUITE_P(Disks, GuestBackendNotForFirmware,
                         testing::Values(NotForFirmware{"pv", "pv"}, NotForFirmware{"pvh", "pvh"},
                                         NotForFirmware{"pv_qdisk", "pv", "qdisk"},
                                         NotForFirmware{"read_only", "hvm", "vbd3", "r"},
                                         NotForFirmware{"cdrom", "hvm", "vbd3", "w", "cdrom"},
                                         NotForFirmware{"xvde", "hvm", "vbd3", "w", "disk", 51776}),
                         [](const testing::TestParamInfo<NotForFirmware>& test) {
                           return std::string(test.param.what);
                         });

TEST_F(GuestBackendFirmware, ADriverDomainHasNoDeviceModel) {
  own_domain_ = 3;
  MemXenStoreTree::Permissions readable;
  readable.listed[3] = MemXenStoreTree::Access::read;
  ASSERT_TRUE(toolstack_.store().write("/local/domain/3", ""));
  ASSERT_TRUE(toolstack_.store().set_permissions("/local/domain/3", readable));
  const FakeDisk xvda = boot_disk();
  toolstack_.add(xvda);
  start(3);
  ASSERT_TRUE(is_connected(xvda)) << xen_.store().dump();
  EXPECT_EQ(device_path(xvda), "");
}

}  // namespace
}  // namespace iscsi_blkback
