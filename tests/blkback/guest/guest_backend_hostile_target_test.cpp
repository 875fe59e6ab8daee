// A target whose words are meant for the operator's terminal: they reach log, xenstore and status
// as printable text only, and a LUN with such a name can be told from others and be pinned by it.
#include "base/log.h"
#include "base/printable_text.h"
#include "tests/blkback/guest/guest_backend_fixture.h"
#include "tests/support/hostile_text.h"
#include "tests/support/vpd_bytes.h"

namespace iscsi_blkback {
namespace {

using testing::HasSubstr;

class GuestBackendHostileTarget : public GuestBackendTest {
 protected:
  GuestBackendHostileTarget() {
    auto sink = std::make_unique<MemoryLogSink>();
    log_ = sink.get();
    log_before_ = set_log_sink(std::move(sink));
    set_log_level(LogLevel::debug);
    configuration_.max_ring_page_order = 0;
  }
  ~GuestBackendHostileTarget() override {
    for (const std::string& line : log_->lines()) {
      EXPECT_TRUE(is_harmless(line)) << line;
    }
    set_log_level(LogLevel::info);
    set_log_sink(std::move(log_before_));
  }

  // A LUN that has nothing but that name; which of the guest's disks leads there.
  std::uint16_t add_lun(const std::string& name) {
    const auto number = static_cast<std::uint16_t>(10 + luns_.size());
    SimLunOptions options;
    options.vendor = name.substr(0, 8);
    options.product = name.substr(0, 16);
    options.serial = name;
    options.naa_extension = 0;
    target_.add_lun(number, std::make_shared<SimLun>(options));
    luns_.push_back(name);
    return number;
  }
  FakeDisk add_disk(std::uint16_t lun, const std::string& wwid) {
    std::string written;
    for (const char c : wwid) {
      written += fmt::format("%{:02x}", static_cast<unsigned char>(c));
    }
    const FakeDisk added =
        disk(fmt::format("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/{}?wwid={}", lun, written),
             51712 + std::uint32_t{lun} * 16);
    toolstack_.add(added);
    return added;
  }
  bool connected(const FakeDisk& disk) {
    return toolstack_.backend_value(disk, "hotplug-status") == "connected";
  }

  MemoryLogSink* log_;
  std::unique_ptr<LogSink> log_before_;
  std::vector<std::string> luns_;
};

TEST_F(GuestBackendHostileTarget, NamesOfLunsArePrintableInXenstoreAndLog) {
  std::vector<std::pair<FakeDisk, std::string>> disks;
  for (const HostileText& hostile : hostile_texts(200)) {
    disks.emplace_back(add_disk(add_lun("N" + hostile.text), "Sanother"), hostile.text);
  }
  start();
  run_for(5s);
  for (const auto& [disk, text] : disks) {
    const std::string error = error_of(disk);
    EXPECT_TRUE(is_harmless(error)) << error;
    const std::string name = "N" + text;
    const auto serial = parse_unit_serial_number(page(0x80, iscsi_blkback::text(name)));
    ASSERT_TRUE(serial);
    EXPECT_THAT(error, HasSubstr("its identity is \"" + wwid_of({.serial = *serial,
                                                                 .vendor = name.substr(0, 8),
                                                                 .product = name.substr(0, 16)})
                                                            .substr(0, 400)));
  }
}

TEST_F(GuestBackendHostileTarget, ALunIsPinnedByWhatIsShownOfItsName) {
  configuration_.multipath.shared = true;  // some of the names are the same when they are shown
  std::vector<FakeDisk> pinned;
  std::vector<FakeDisk> lookalikes;
  for (const HostileText& hostile : hostile_texts(60)) {
    const std::string name = "N" + hostile.text.substr(0, hostile.text.find('\0'));
    const std::string shown = "S" + printable_identity(name);
    pinned.push_back(add_disk(add_lun(name), shown));
    lookalikes.push_back(add_disk(add_lun(shown.substr(1)), shown));
  }
  start();
  ASSERT_TRUE(run_until([&] {
    return std::all_of(pinned.begin(), pinned.end(),
                       [this](const FakeDisk& disk) { return connected(disk); });
  }));
  run_for(5s);
  for (std::size_t at = 0; at < lookalikes.size(); ++at) {
    const std::string& name = luns_[2 * at];
    if (printable_identity(name) != name) {
      EXPECT_FALSE(connected(lookalikes[at])) << name << ": it only looks the same";
    }
  }
}

TEST_F(GuestBackendHostileTarget, WhereItRedirectsToIsPrintableInXenstoreAndLog) {
  const FakeDisk attached = disk();
  toolstack_.add(attached);
  start();
  for (const HostileText& hostile : hostile_texts(200)) {
    const std::string where = "N" + hostile.text.substr(0, hostile.text.find('\0'));
    target_.redirect_logins(0, where);
    target_.redirect_logins(1, where);
    run_for(4s);
    const std::string error = error_of(attached);
    EXPECT_TRUE(is_harmless(error)) << error;
    EXPECT_THAT(error, HasSubstr("redirects")) << hostile.name;
  }
  target_.redirect_logins(0, "");
  target_.redirect_logins(1, "");
}

}  // namespace
}  // namespace iscsi_blkback
