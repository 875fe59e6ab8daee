// The XenStore on libxenstore where the contract says nothing of it: nobody is there, xenstored
// hangs, and it is behind a device instead of a socket.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <termios.h>

#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <thread>

#include "base/log.h"
#include "base/unique_fd.h"
#include "blkback/xen/xenstore.h"
#include "tests/support/fake_xenstored.h"
#include "tests/support/mem_faults.h"

extern "C" {
#include <xen/io/xs_wire.h>
}

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

bool is_readable(const XenStore& store, std::chrono::milliseconds wait) {
  pollfd at{store.fd(), POLLIN, 0};
  return ::poll(&at, 1, static_cast<int>(wait.count())) == 1;
}

// Counts the lines that say something.
class CountingSink final : public LogSink {
 public:
  explicit CountingSink(std::string text) : text_(std::move(text)) {}
  void write(LogLevel, std::string_view line) noexcept override {
    seen_ += line.find(text_) != std::string_view::npos ? 1 : 0;
    answers_ += line.find("has answered after") != std::string_view::npos ? 1 : 0;
  }
  [[nodiscard]] int seen() const { return seen_; }
  [[nodiscard]] int answers() const { return answers_; }

 private:
  std::string text_;
  std::atomic<int> seen_ = 0;
  std::atomic<int> answers_ = 0;
};

class LibxenXenStoreTest : public testing::Test {
 protected:
  MemFaults faults_;
  MemXenStoreTree tree_{faults_};
  FakeXenstored xenstored_{tree_};
};

TEST_F(LibxenXenStoreTest, WhereNobodyListensNothingIsWaitedFor) {
  xenstored_.kill();
  const auto store = xenstored_.connect();
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().code, ErrorCode::unavailable);
  EXPECT_THAT(store.error().message, HasSubstr(xenstored_.path()));
}

TEST(LibxenXenStore, WhereThereIsNoSocketAndNoDeviceThatIsSaid) {
  ::setenv("XENSTORED_PATH", "/nonexistent/xenstored", 1);
  const auto store = open_xenstore();
  ::unsetenv("XENSTORED_PATH");
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().code, ErrorCode::not_found);
  EXPECT_THAT(store.error().message, HasSubstr("/nonexistent/xenstored"));
}

// The call returns only when xenstored goes on; meanwhile the log says why nothing happens.
TEST_F(LibxenXenStoreTest, AXenstoredThatHangsIsSpokenOfInTheLog) {
  auto* const log = new CountingSink("xenstored has not answered for");
  auto before = set_log_sink(std::unique_ptr<LogSink>(log));
  XenStoreTimes times;
  times.notice_after = 20ms;
  auto store = xenstored_.connect(times);
  ASSERT_TRUE(store) << store.error().message;
  xenstored_.set_hung(true);
  std::thread later([&] {
    while (log->seen() < 2) {
      std::this_thread::sleep_for(1ms);
    }
    xenstored_.set_hung(false);
  });
  const auto value = (*store)->read("/a");
  later.join();
  ASSERT_FALSE(value);
  EXPECT_EQ(value.error().code, ErrorCode::not_found);
  EXPECT_EQ(log->answers(), 1);
  EXPECT_TRUE((*store)->write("/a", "1"));
  store->reset();
  EXPECT_LE(log->seen(), 10) << "ever more rarely";
  (void)set_log_sink(std::move(before));
}

// The hang-up of a relay says nothing of a xenstored in another domain.
TEST_F(LibxenXenStoreTest, ARelayFromTheDeviceIsAskedWhetherItLives) {
  XenStoreTimes times;
  times.liveness_interval = 10ms;
  for (const bool relayed : {false, true}) {
    times.relayed_from_device = relayed;
    const auto store = xenstored_.connect(times);
    ASSERT_TRUE(store) << store.error().message;
    EXPECT_EQ(is_readable(**store, relayed ? 60000ms : 50ms), relayed);
    const auto event = (*store)->next_event();
    ASSERT_TRUE(event) << event.error().message;
    EXPECT_FALSE(*event);
  }
}

TEST_F(LibxenXenStoreTest, OneThatAnswersIsNotSpokenOf) {
  auto* const log = new CountingSink("answered");
  auto before = set_log_sink(std::unique_ptr<LogSink>(log));
  XenStoreTimes times;
  times.notice_after = 20s;
  auto store = xenstored_.connect(times);
  ASSERT_TRUE(store) << store.error().message;
  for (int i = 0; i < 100; ++i) {
    EXPECT_TRUE((*store)->write("/a", "1"));
  }
  store->reset();
  EXPECT_EQ(log->seen(), 0);
  (void)set_log_sink(std::move(before));
}

// Whatever comes after it could belong to it.
TEST_F(LibxenXenStoreTest, AnAnswerThatIsNoListEndsTheConnection) {
  auto store = xenstored_.connect();
  ASSERT_TRUE(store) << store.error().message;
  ASSERT_TRUE((*store)->write("/a/b", "1"));
  xenstored_.set_confused(true);
  const auto names = (*store)->list("/a");
  ASSERT_FALSE(names);
  EXPECT_EQ(names.error().code, ErrorCode::unavailable);
  EXPECT_THAT(names.error().message, HasSubstr("no list of its node /a"));
  EXPECT_TRUE(is_readable(**store, 0ms));
  const auto value = (*store)->read("/a/b");
  ASSERT_FALSE(value);
  EXPECT_EQ(value.error().code, ErrorCode::unavailable);
}

TEST(LibxenXenStore, AListBeyondAllBoundsIsNotRead) {
  MemFaults faults;
  MemXenStoreTree tree{faults};
  const auto toolstack = tree.connect(0);
  const std::string long_name(2000, 'a');
  for (int child = 0; child < 600; ++child) {
    ASSERT_TRUE(toolstack->write("/many/" + long_name + std::to_string(child), ""));
  }
  FakeXenstored xenstored(tree, LongLists::in_one_message);
  auto store = xenstored.connect();
  ASSERT_TRUE(store) << store.error().message;
  const auto names = (*store)->list("/many");
  ASSERT_FALSE(names);
  EXPECT_EQ(names.error().code, ErrorCode::unavailable);
  EXPECT_THAT(names.error().message, HasSubstr("no list of its node /many"));
}

// --- a device, as /dev/xen/xenbus is one -------------------------------------------------------

// A terminal whose other end answers every request with "0", and lists as oxenstored those that
// are too long.
class DeviceTest : public testing::Test {
 protected:
  // libxenstore makes the terminal the controlling one where the test program leads a session, as
  // in tests/mutants/run; it hangs up when the device goes.
  static void SetUpTestSuite() { hang_up_ = ::signal(SIGHUP, SIG_IGN); }
  static void TearDownTestSuite() { (void)::signal(SIGHUP, hang_up_); }

  void SetUp() override {
    other_end_.reset(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    std::array<char, 64> name{};
    if (!other_end_.valid() || ::grantpt(other_end_.get()) != 0 ||
        ::unlockpt(other_end_.get()) != 0 ||
        ::ptsname_r(other_end_.get(), name.data(), name.size()) != 0) {
      GTEST_SKIP() << "no pseudo-terminals here";
    }
    // Kept open, so that the terminal's settings last.
    device_.reset(::open(name.data(), O_RDWR | O_NOCTTY | O_CLOEXEC));
    termios raw{};
    ASSERT_EQ(::tcgetattr(device_.get(), &raw), 0);
    ::cfmakeraw(&raw);
    ASSERT_EQ(::tcsetattr(device_.get(), TCSANOW, &raw), 0);
    xenstored_ = std::thread([this] { serve(); });
    XenStoreTimes times;
    times.liveness_interval = 20ms;
    ::setenv("XENSTORED_PATH", name.data(), 1);
    auto store = open_xenstore(times);
    ::unsetenv("XENSTORED_PATH");
    ASSERT_TRUE(store) << store.error().message;
    store_ = std::move(*store);
  }
  void TearDown() override { end_xenstored(); }

  void end_xenstored() {
    ending_ = true;
    if (xenstored_.joinable()) {
      xenstored_.join();
    }
    other_end_.reset();
  }

  std::unique_ptr<XenStore> store_;
  std::atomic<int> requests_ = 0;

 private:
  inline static sighandler_t hang_up_ = SIG_DFL;

  void serve() {
    while (!ending_) {
      xsd_sockmsg header{};
      std::array<char, XENSTORE_PAYLOAD_MAX> payload;
      if (!receive(&header, sizeof header) || !receive(payload.data(), header.len)) {
        return;
      }
      ++requests_;
      using namespace std::string_literals;
      const std::string text = header.type == XS_DIRECTORY        ? "E2BIG\0"s
                               : header.type == XS_DIRECTORY_PART ? "ENOSYS\0"s
                                                                  : "0"s;
      if (text.size() > 1) {
        header.type = XS_ERROR;
      }
      header.len = static_cast<std::uint32_t>(text.size());
      const std::string answer =
          std::string(reinterpret_cast<char*>(&header), sizeof header) + text;
      if (::write(other_end_.get(), answer.data(), answer.size()) !=
          static_cast<ssize_t>(answer.size())) {
        return;
      }
    }
  }
  bool receive(void* to, std::size_t length_bytes) {
    auto* at = static_cast<char*>(to);
    while (length_bytes != 0) {
      pollfd arrived{other_end_.get(), POLLIN, 0};
      if (::poll(&arrived, 1, 5) == 0 && !ending_) {
        continue;
      }
      const ssize_t got = ending_ ? -1 : ::read(other_end_.get(), at, length_bytes);
      if (got <= 0) {
        return false;
      }
      at += got;
      length_bytes -= static_cast<std::size_t>(got);
    }
    return true;
  }

  UniqueFd other_end_;
  UniqueFd device_;
  std::atomic<bool> ending_ = false;
  std::thread xenstored_;
};

TEST_F(DeviceTest, XenstoredBehindOneIsAskedFromTimeToTimeWhetherItLives) {
  EXPECT_EQ(store_->read("/a").value_or("?"), "0");
  ASSERT_TRUE(store_->watch("/w", "t"));
  const int asked = requests_;
  for (int question = 1; question <= 3; ++question) {
    ASSERT_TRUE(is_readable(*store_, 10s));
    const auto event = store_->next_event();
    EXPECT_TRUE(event && !event->has_value());
  }
  EXPECT_EQ(requests_, asked + 3);
}

TEST_F(DeviceTest, AListThatOxenstoredDoesNotGiveThroughOneIsAnErrorAndNoLoss) {
  const auto names = store_->list("/many");
  ASSERT_FALSE(names);
  EXPECT_EQ(names.error().code, ErrorCode::unsupported);
  EXPECT_THAT(names.error().message, HasSubstr("/many is longer than 4096 bytes"));
  EXPECT_EQ(store_->read("/a").value_or("?"), "0");
}

TEST_F(DeviceTest, ItsDeathIsNoticedByTheNextQuestion) {
  ASSERT_TRUE(store_->watch("/w", "t"));
  end_xenstored();
  Result<std::optional<WatchEvent>> event;
  for (int wait = 0; event && wait < 10; ++wait) {
    ASSERT_TRUE(is_readable(*store_, 10s));
    event = store_->next_event();
  }
  ASSERT_FALSE(event);
  EXPECT_EQ(event.error().code, ErrorCode::unavailable);
  EXPECT_TRUE(is_readable(*store_, 0ms)) << "from now on";
}

}  // namespace
}  // namespace iscsi_blkback
