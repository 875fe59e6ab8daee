// A guest's kernel that is replaced by another one, or gives up its ring, while requests are under
// way: its memory is not touched after that.
#include "tests/blkback/guest/guest_backend_fixture.h"

namespace iscsi_blkback {
namespace {

class GuestCrashTest : public GuestBackendTest {
 protected:
  // A read that the target has, and answers when the test says so.
  std::uint64_t start_a_late_read(FakeFrontend& guest) {
    SimFault late;
    late.matches = [](const SimCommand& command) { return is_read(command); };
    late.hold = true;
    late.count = 0;
    target_.inject(late);
    const auto id = guest.read(0, 8);
    guest.push();
    EXPECT_TRUE(run_until([&] { return target_.held() != 0; }, 1s));
    return id.value_or(0);
  }
  // The backend looks, the kernel that has crashed does nothing any more.
  void backend_runs(Duration span) { reactor_.run_for(span); }
  void answer_late() {
    target_.clear_faults();
    target_.release_held();
    backend_runs(100ms);
  }
};

TEST_F(GuestCrashTest, ALateReadOfACrashedKernelDoesNotComeIntoTheNextOnesMemory) {
  FakeFrontend& guest = serve();
  write(guest, 0, pattern(8, 1));
  const std::uint64_t id = start_a_late_read(guest);
  guest.restart_abruptly();
  guest.revoke_data(id);
  // The number of the page's grant is another page's by now.
  GuestMemory next_kernel(1);
  (void)xen_.grants().grant(kGuest, next_kernel, 0, 0, false);
  backend_runs(20ms);
  const auto copied = xen_.grants().counters().copied_segments;
  answer_late();
  EXPECT_EQ(xen_.grants().counters().copied_segments, copied);
  EXPECT_EQ(next_kernel.page(0)[1], std::byte{0});
  // The disk is there for the next kernel, and has what the first one has written.
  ASSERT_TRUE(connect(guest)) << xen_.store().dump();
  const auto again = guest.read(0, 8);
  guest.push();
  std::optional<FakeFrontend::Answer> answer;
  ASSERT_TRUE(run_until([&] {
    answer = guest.take_completion(again.value_or(0));
    return answer.has_value();
  }));
  EXPECT_EQ(answer->data, pattern(8, 1));
}

}  // namespace
}  // namespace iscsi_blkback
