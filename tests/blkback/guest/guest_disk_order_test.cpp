// What a frontend may rely on when it sees a state of the backend's node, whichever call of ours
// has failed before.
#include "tests/blkback/guest/guest_backend_fixture.h"

namespace iscsi_blkback {
namespace {

// blkfront reads the size as soon as it sees Connected, and never again: a disk without one is none
// for it.
class ConnectedDisk : public GuestBackendTest {
 public:
  void TestBody() override {}
  // With the nth call to Xen failing from when the frontend is ready to be connected. False: there
  // are not so many.
  bool is_never_there_without_its_size(std::uint64_t nth) {
    const FakeDisk xvda = disk();
    toolstack_.add(xvda);
    start();
    boot(xvda);
    EXPECT_TRUE(run_until([&] { return toolstack_.frontend_state(xvda) == 3; }));
    xen_.faults().fail_nth(nth);
    bool fired = false;
    for (int i = 0; i < 5000; ++i) {
      reactor_.run_for(1ms);
      fired = fired || !xen_.faults().fired().empty();
      if (fired) {  // before that, this look might be the call that fails
        xen_.faults().disarm();
        expect_size(xvda);
      }
    }
    xen_.faults().disarm();
    expect_size(xvda);
    return fired;
  }

 private:
  void expect_size(const FakeDisk& xvda) {
    if (toolstack_.backend_state(xvda) == 4) {
      EXPECT_EQ(toolstack_.backend_value(xvda, "sectors"), "2048");
      EXPECT_EQ(toolstack_.backend_value(xvda, "sector-size"), "512");
    }
  }
};

TEST(GuestDiskOrder, AConnectedDiskIsNeverThereWithoutItsSize) {
  std::uint64_t nth = 1;
  while (nth < 100 && std::make_unique<ConnectedDisk>()->is_never_there_without_its_size(nth)) {
    ++nth;
  }
  EXPECT_GE(nth, 5U) << "or the test shows nothing";
}

}  // namespace
}  // namespace iscsi_blkback
