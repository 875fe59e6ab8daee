// The lab's hostile frontend against a whole guest's backend in virtual time, beside a disk of the
// same process that must not notice. See tests/support/hostile_frontend.h.
#include "tests/support/hostile_frontend.h"

#include <algorithm>
#include <string>
#include <tuple>

#include "base/log.h"
#include "tests/blkback/guest/guest_backend_fixture.h"
#include "tests/support/mem_guest_platform.h"

namespace iscsi_blkback {
namespace {

class HostileFrontendTest : public GuestBackendTest,
                            public testing::WithParamInterface<std::tuple<const char*, int>> {
 protected:
  HostileFrontendTest() {
    auto sink = std::make_unique<MemoryLogSink>();
    sink_ = sink.get();
    before_ = set_log_sink(std::move(sink));
  }
  ~HostileFrontendTest() override { (void)set_log_sink(std::move(before_)); }

  MemoryLogSink* sink_;

 private:
  std::unique_ptr<LogSink> before_;
};

TEST_P(HostileFrontendTest, CostsNobodyElseAnything) {
  const auto [mode, seed] = GetParam();
  SimLunOptions thin;
  thin.thin_provisioned = true;
  target_.add_lun(1, std::make_shared<SimLun>(thin));
  const FakeDisk xvda = disk();
  const FakeDisk xvdb = second_disk();
  toolstack_.add(xvda);
  toolstack_.add(xvdb);
  start();
  FakeFrontend& other = boot(xvdb);
  ASSERT_TRUE(connect(other));
  const std::size_t pages = xen_.grants().mapped_pages();
  const std::size_t ports = xen_.events().bound_ports();
  {
    MemGuestPlatform guest(xen_, reactor_, kGuest);
    HostileFrontend::Options options;
    options.device_id = xvda.device_id;
    options.duration = std::string(mode).starts_with("bad-") ? 400ms : 100ms;
    options.seed = static_cast<std::uint64_t>(seed);
    HostileFrontend frontend(guest, options);
    EXPECT_EQ(frontend.run(mode), "") << frontend.summary() << "\n" << xen_.store().dump();
    EXPECT_THAT(frontend.summary(), testing::Not(testing::StartsWith("0 rounds")));
    RecordProperty("summary", frontend.summary());
    other.poll();
    EXPECT_EQ(xen_.grants().mapped_pages(), pages) << "the evil disk's frontend has closed";
    EXPECT_EQ(xen_.events().bound_ports(), ports);
  }
  do_io(other);
  EXPECT_LT(sink_->lines().size(), 80U);
}

INSTANTIATE_TEST_SUITE_P(All, HostileFrontendTest,
                         testing::Combine(testing::Values("reconnect", "flap", "bad-requests",
                                                          "bad-ring", "storm", "busy", "greedy"),
                                          testing::Values(1, 2, 3)),
                         [](const auto& of) {
                           std::string name = std::get<0>(of.param);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name + "_" + std::to_string(std::get<1>(of.param));
                         });

}  // namespace
}  // namespace iscsi_blkback
