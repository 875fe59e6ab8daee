// The contract of the Xen seams: one suite that the in-memory twins pass everywhere and libxen*
// passes in a Xen domain. libxenstore passes it everywhere, too, before a xenstored of our own.
// Without arguments: in memory. --real: on the hypervisor; fails when there is none.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <span>
#include <string_view>
#include <thread>
#include <vector>

#include "tests/blkback/xen/xen_rig.h"

namespace iscsi_blkback {
namespace {

bool g_real = false;

constexpr int kWaitMilliseconds = 10000;  // bounds a hang; nothing takes that long

class XenContract : public testing::Test {
 protected:
  void SetUp() override {
    std::string why = "?";
    rig_ = g_real ? make_real_rig(&why) : make_fake_rig();
    ASSERT_NE(rig_, nullptr) << why;
  }
  [[nodiscard]] virtual std::unique_ptr<XenRig> make_fake_rig() const { return make_memory_rig(); }

  static bool readable(int fd, int milliseconds = 0) {
    pollfd at{fd, POLLIN, 0};
    return poll(&at, 1, milliseconds) == 1;
  }

  std::unique_ptr<XenRig> rig_;
};

// --- grants ------------------------------------------------------------------------------------

class GrantTableContract : public XenContract {
 protected:
  void SetUp() override {
    XenContract::SetUp();
    if (HasFatalFailure()) {
      return;
    }
    Result<std::unique_ptr<GrantTable>> table = rig_->grant_table();
    ASSERT_TRUE(table) << table.error().message;
    table_ = std::move(*table);
  }

  GrantCopySegment segment(GrantCopyDirection direction, GrantReference reference,
                           std::size_t offset, std::size_t length, std::byte* local) {
    GrantCopySegment segment;
    segment.direction = direction;
    segment.domain = rig_->guest();
    segment.reference = reference;
    segment.offset_bytes = static_cast<std::uint16_t>(offset);
    segment.length_bytes = static_cast<std::uint16_t>(length);
    segment.local = local;
    return segment;
  }

  static constexpr GrantReference kNoSuchReference = 0x00ffffff;
  std::unique_ptr<GrantTable> table_;
};

TEST_F(GrantTableContract, AMappingIsTheGuestsOwnMemory) {
  const auto shared = rig_->share(1, true);
  ASSERT_FALSE(shared.bytes.empty());
  auto mapped = table_->map(rig_->guest(), shared.references);
  ASSERT_TRUE(mapped) << mapped.error().message;
  ASSERT_EQ((*mapped)->bytes().size(), kXenPageBytes);
  shared.bytes[17] = std::byte{0x42};
  EXPECT_EQ((*mapped)->bytes()[17], std::byte{0x42});
  (*mapped)->bytes()[4095] = std::byte{0x43};
  EXPECT_EQ(shared.bytes[4095], std::byte{0x43});
}

TEST_F(GrantTableContract, SeveralPagesAreMappedInTheOrderGiven) {
  const auto shared = rig_->share(4, true);
  ASSERT_FALSE(shared.bytes.empty());
  for (std::size_t page = 0; page < 4; ++page) {
    shared.bytes[page * kXenPageBytes] = static_cast<std::byte>(page + 1);
  }
  const std::array<GrantReference, 4> order = {shared.references[2], shared.references[0],
                                               shared.references[3], shared.references[1]};
  auto mapped = table_->map(rig_->guest(), order);
  ASSERT_TRUE(mapped) << mapped.error().message;
  ASSERT_EQ((*mapped)->bytes().size(), 4 * kXenPageBytes);
  EXPECT_EQ((*mapped)->bytes()[0 * kXenPageBytes], std::byte{3});
  EXPECT_EQ((*mapped)->bytes()[1 * kXenPageBytes], std::byte{1});
  EXPECT_EQ((*mapped)->bytes()[2 * kXenPageBytes], std::byte{4});
  EXPECT_EQ((*mapped)->bytes()[3 * kXenPageBytes], std::byte{2});
}

TEST_F(GrantTableContract, MappingAgainAfterUnmapping) {
  const auto shared = rig_->share(1, true);
  ASSERT_FALSE(shared.bytes.empty());
  for (int i = 0; i < 20; ++i) {
    auto mapped = table_->map(rig_->guest(), shared.references);
    ASSERT_TRUE(mapped) << mapped.error().message;
    (*mapped)->bytes()[0] = static_cast<std::byte>(i);
    EXPECT_EQ(shared.bytes[0], static_cast<std::byte>(i));
  }
}

TEST_F(GrantTableContract, MappingAnUnknownReferenceFailsAsAWhole) {
  const auto shared = rig_->share(1, true);
  ASSERT_FALSE(shared.bytes.empty());
  const std::array<GrantReference, 2> references = {shared.references[0], kNoSuchReference};
  EXPECT_FALSE(table_->map(rig_->guest(), references));
  EXPECT_TRUE(table_->map(rig_->guest(), shared.references)) << "the good one is still usable";
}

TEST_F(GrantTableContract, MappingNothingFails) {
  EXPECT_FALSE(table_->map(rig_->guest(), {}));
}

TEST_F(GrantTableContract, CopiesBothWays) {
  const auto shared = rig_->share(2, true);
  ASSERT_FALSE(shared.bytes.empty());
  std::vector<std::byte> local(8192);
  for (std::size_t i = 0; i < local.size(); ++i) {
    local[i] = static_cast<std::byte>(i % 251);
  }
  std::array to = {
      segment(GrantCopyDirection::to_guest, shared.references[0], 0, 4096, local.data()),
      segment(GrantCopyDirection::to_guest, shared.references[1], 512, 1024, local.data() + 4096)};
  ASSERT_TRUE(table_->copy(to));
  EXPECT_TRUE(to[0].ok && to[1].ok);
  EXPECT_EQ(std::memcmp(shared.bytes.data(), local.data(), 4096), 0);
  EXPECT_EQ(std::memcmp(shared.bytes.data() + 4096 + 512, local.data() + 4096, 1024), 0);
  EXPECT_EQ(shared.bytes[4096 + 511], std::byte{0});
  EXPECT_EQ(shared.bytes[4096 + 1536], std::byte{0});

  std::vector<std::byte> back(4096);
  std::array from = {
      segment(GrantCopyDirection::from_guest, shared.references[0], 1024, 2048, back.data())};
  ASSERT_TRUE(table_->copy(from));
  EXPECT_TRUE(from[0].ok);
  EXPECT_EQ(std::memcmp(back.data(), local.data() + 1024, 2048), 0);
}

TEST_F(GrantTableContract, OurSideOfACopyMayCrossAPage) {
  const auto shared = rig_->share(1, true);
  ASSERT_FALSE(shared.bytes.empty());
  std::fill(shared.bytes.begin(), shared.bytes.end(), std::byte{9});
  std::vector<std::byte> local(3 * 4096 + 100);
  std::array from = {
      segment(GrantCopyDirection::from_guest, shared.references[0], 0, 4096, local.data() + 100)};
  ASSERT_TRUE(table_->copy(from));
  ASSERT_TRUE(from[0].ok);
  EXPECT_EQ(std::count(local.begin(), local.end(), std::byte{9}), 4096);
}

TEST_F(GrantTableContract, MoreSegmentsThanAnyBatch) {
  const auto shared = rig_->share(4, true);
  ASSERT_FALSE(shared.bytes.empty());
  std::vector<std::byte> local(2500 * 512);
  std::vector<GrantCopySegment> segments;
  for (std::size_t i = 0; i < 2500; ++i) {
    segments.push_back(segment(GrantCopyDirection::from_guest, shared.references[i % 4],
                               i % 8 * 512, 512, local.data() + i * 512));
  }
  for (std::size_t sector = 0; sector < 32; ++sector) {
    std::memset(shared.bytes.data() + sector * 512, static_cast<int>(sector), 512);
  }
  ASSERT_TRUE(table_->copy(segments));
  for (std::size_t i = 0; i < 2500; ++i) {
    ASSERT_TRUE(segments[i].ok) << i;
    ASSERT_EQ(local[i * 512 + 511], static_cast<std::byte>(i % 4 * 8 + i % 8)) << i;
  }
}

TEST_F(GrantTableContract, AnUnknownReferenceFailsItsSegmentOnly) {
  const auto shared = rig_->share(1, true);
  ASSERT_FALSE(shared.bytes.empty());
  shared.bytes[0] = std::byte{7};
  std::array<std::byte, 3 * 512> local{};
  std::array segments = {
      segment(GrantCopyDirection::from_guest, shared.references[0], 0, 512, local.data()),
      segment(GrantCopyDirection::from_guest, kNoSuchReference, 0, 512, local.data() + 512),
      segment(GrantCopyDirection::from_guest, shared.references[0], 0, 512, local.data() + 1024)};
  ASSERT_TRUE(table_->copy(segments));
  EXPECT_TRUE(segments[0].ok);
  EXPECT_FALSE(segments[1].ok);
  EXPECT_TRUE(segments[2].ok);
  EXPECT_EQ(local[1024], std::byte{7});
}

TEST_F(GrantTableContract, AReadOnlyGrantIsNotWritten) {
  const auto shared = rig_->share(1, false);
  ASSERT_FALSE(shared.bytes.empty());
  std::array<std::byte, 512> local{};
  local.fill(std::byte{5});
  std::array to = {
      segment(GrantCopyDirection::to_guest, shared.references[0], 0, 512, local.data())};
  ASSERT_TRUE(table_->copy(to));
  EXPECT_FALSE(to[0].ok);
  std::array from = {
      segment(GrantCopyDirection::from_guest, shared.references[0], 0, 512, local.data())};
  ASSERT_TRUE(table_->copy(from));
  EXPECT_TRUE(from[0].ok);
  EXPECT_EQ(local[0], std::byte{0});
}

TEST_F(GrantTableContract, AReadOnlyGrantIsNotMapped) {
  const auto shared = rig_->share(1, false);
  ASSERT_FALSE(shared.bytes.empty());
  EXPECT_FALSE(table_->map(rig_->guest(), shared.references));
}

TEST_F(GrantTableContract, ACopyBeyondThePageIsRefusedAsAWhole) {
  const auto shared = rig_->share(1, true);
  ASSERT_FALSE(shared.bytes.empty());
  std::array<std::byte, 1024> local{};
  std::array segments = {
      segment(GrantCopyDirection::from_guest, shared.references[0], 3584, 1024, local.data())};
  EXPECT_FALSE(table_->copy(segments));
  EXPECT_FALSE(segments[0].ok);
}

TEST_F(GrantTableContract, NoSegmentsIsFine) {
  EXPECT_TRUE(table_->copy({}));
}

// --- event channels ----------------------------------------------------------------------------

class EventChannelsContract : public XenContract {
 protected:
  void SetUp() override {
    XenContract::SetUp();
    if (HasFatalFailure()) {
      return;
    }
    Result<std::unique_ptr<EventChannels>> channels = rig_->event_channels();
    ASSERT_TRUE(channels) << channels.error().message;
    channels_ = std::move(*channels);
    guest_port_ = rig_->allocate_port();
    ASSERT_NE(guest_port_, 0U);
  }

  // The port that is pending after at most a generous time; 0: none.
  LocalPort wait_pending() {
    if (!readable(channels_->fd(), kWaitMilliseconds)) {
      return 0;
    }
    LocalPort port = 0;
    return channels_->take_pending({&port, 1}).value_or(0) == 1 ? port : 0;
  }
  bool nothing_pending() { return !readable(channels_->fd(), g_real ? 50 : 0); }

  // Bound, with the event of binding consumed.
  LocalPort bind() {
    const Result<LocalPort> port = channels_->bind_interdomain(rig_->guest(), guest_port_);
    EXPECT_TRUE(port) << (port ? "" : port.error().message);
    EXPECT_EQ(wait_pending(), port.value_or(0));
    EXPECT_TRUE(channels_->unmask(port.value_or(0)));
    return port.value_or(0);
  }

  std::unique_ptr<EventChannels> channels_;
  std::uint32_t guest_port_ = 0;
};

TEST_F(EventChannelsContract, NothingIsPendingAtFirst) {
  EXPECT_FALSE(readable(channels_->fd()));
  std::array<LocalPort, 4> ports{};
  EXPECT_EQ(channels_->take_pending(ports).value(), 0U);
}

TEST_F(EventChannelsContract, AllThatArePendingAreTakenAtOnceAsFarAsThereIsRoom) {
  std::vector<LocalPort> bound{bind()};
  std::vector<std::uint32_t> guest_ports{guest_port_};
  for (int i = 0; i < 2; ++i) {
    guest_port_ = rig_->allocate_port();
    guest_ports.push_back(guest_port_);
    bound.push_back(bind());
  }
  for (const std::uint32_t port : guest_ports) {
    rig_->guest_notify(port);
  }
  ASSERT_TRUE(readable(channels_->fd(), kWaitMilliseconds));
  std::array<LocalPort, 4> ports{};
  const std::size_t first = channels_->take_pending(std::span(ports).first(2)).value();
  EXPECT_GE(first, 1U);
  std::vector<LocalPort> taken(ports.begin(), ports.begin() + static_cast<std::ptrdiff_t>(first));
  while (taken.size() < bound.size() && readable(channels_->fd(), kWaitMilliseconds)) {
    const std::size_t more = channels_->take_pending(ports).value();
    taken.insert(taken.end(), ports.begin(), ports.begin() + static_cast<std::ptrdiff_t>(more));
  }
  std::sort(taken.begin(), taken.end());
  std::vector<LocalPort> wanted = bound;
  std::sort(wanted.begin(), wanted.end());
  EXPECT_EQ(taken, wanted);
  EXPECT_EQ(channels_->take_pending(ports).value(), 0U);
  for (const LocalPort port : bound) {
    channels_->unbind(port);
  }
}

TEST_F(EventChannelsContract, BindingMakesThePortPendingOnce) {
  const Result<LocalPort> port = channels_->bind_interdomain(rig_->guest(), guest_port_);
  ASSERT_TRUE(port) << port.error().message;
  EXPECT_EQ(wait_pending(), *port);
  EXPECT_TRUE(nothing_pending());
  ASSERT_TRUE(channels_->unmask(*port));
  EXPECT_TRUE(nothing_pending());
  channels_->unbind(*port);
}

TEST_F(EventChannelsContract, RingsBothWays) {
  const LocalPort port = bind();
  rig_->guest_notify(guest_port_);
  EXPECT_EQ(wait_pending(), port);
  ASSERT_TRUE(channels_->unmask(port));
  ASSERT_TRUE(channels_->notify(port));
  EXPECT_TRUE(rig_->guest_heard(guest_port_));
  channels_->unbind(port);
}

TEST_F(EventChannelsContract, MaskedUntilUnmaskAndThenNotLost) {
  const LocalPort port = bind();
  rig_->guest_notify(guest_port_);
  ASSERT_EQ(wait_pending(), port);
  rig_->guest_notify(guest_port_);
  rig_->guest_notify(guest_port_);
  EXPECT_TRUE(nothing_pending()) << "it is masked";
  ASSERT_TRUE(channels_->unmask(port));
  EXPECT_EQ(wait_pending(), port) << "what rang while masked";
  ASSERT_TRUE(channels_->unmask(port));
  EXPECT_TRUE(nothing_pending()) << "rings are not counted";
  channels_->unbind(port);
}

TEST_F(EventChannelsContract, BindingAPortThatWasNotOfferedFails) {
  EXPECT_FALSE(channels_->bind_interdomain(rig_->guest(), guest_port_ + 1000));
}

TEST_F(EventChannelsContract, BindingTwiceFails) {
  const LocalPort port = bind();
  EXPECT_FALSE(channels_->bind_interdomain(rig_->guest(), guest_port_));
  channels_->unbind(port);
}

TEST_F(EventChannelsContract, BindingAgainAfterUnbinding) {
  for (int i = 0; i < 5; ++i) {
    const LocalPort port = bind();
    rig_->guest_notify(guest_port_);
    EXPECT_EQ(wait_pending(), port);
    channels_->unbind(port);
    EXPECT_TRUE(nothing_pending());
  }
}

TEST_F(EventChannelsContract, TwoPortsAreToldApart) {
  const LocalPort first = bind();
  const std::uint32_t other_guest_port = rig_->allocate_port();
  ASSERT_NE(other_guest_port, 0U);
  guest_port_ = other_guest_port;
  const LocalPort second = bind();
  EXPECT_NE(first, second);
  rig_->guest_notify(other_guest_port);
  EXPECT_EQ(wait_pending(), second);
  EXPECT_TRUE(nothing_pending());
  channels_->unbind(first);
  channels_->unbind(second);
}

// --- xenstore ----------------------------------------------------------------------------------

enum class StoreKind { memory, wire, wire_of_oxenstored, real };

class XenStoreContract : public XenContract, public testing::WithParamInterface<StoreKind> {
 protected:
  std::unique_ptr<XenRig> make_fake_rig() const override {
    return GetParam() == StoreKind::memory ? make_memory_rig()
           : GetParam() == StoreKind::wire ? make_wire_rig(LongLists::in_parts)
                                           : make_wire_rig(LongLists::in_one_message);
  }
  void SetUp() override {
    XenContract::SetUp();
    if (HasFatalFailure()) {
      return;
    }
    Result<std::unique_ptr<XenStore>> store = rig_->xenstore();
    ASSERT_TRUE(store) << store.error().message;
    store_ = std::move(*store);
    Result<std::unique_ptr<XenStore>> other = rig_->xenstore();
    ASSERT_TRUE(other) << other.error().message;
    other_ = std::move(*other);
  }
  void TearDown() override {
    if (store_ != nullptr) {
      (void)store_->remove(rig_->store_path());
    }
  }

  std::string path(const std::string& below) const { return rig_->store_path() + "/" + below; }

  ErrorCode code(const auto& result) {
    EXPECT_FALSE(result.has_value());
    return result ? ErrorCode::io : result.error().code;
  }

  // The next event after at most a generous time; empty path: none.
  WatchEvent wait_event() {
    if (!readable(store_->fd(), kWaitMilliseconds)) {
      return {};
    }
    // The fd may be readable a moment before the event can be taken.
    const Result<std::optional<WatchEvent>> event = store_->next_event();
    EXPECT_TRUE(event);
    return event ? event->value_or(WatchEvent{}) : WatchEvent{};
  }
  bool no_event() {
    (void)readable(store_->fd(), GetParam() == StoreKind::memory ? 0 : 50);
    const Result<std::optional<WatchEvent>> event = store_->next_event();
    EXPECT_TRUE(event);
    return event && !event->has_value();
  }

  std::unique_ptr<XenStore> store_;
  std::unique_ptr<XenStore> other_;
};

TEST_P(XenStoreContract, WhatIsNotThereIsNotFound) {
  EXPECT_EQ(code(store_->read(path("nothing"))), ErrorCode::not_found);
  EXPECT_EQ(code(store_->list(path("nothing"))), ErrorCode::not_found);
  EXPECT_EQ(code(store_->remove(path("nothing"))), ErrorCode::not_found);
}

TEST_P(XenStoreContract, WritesAndReads) {
  ASSERT_TRUE(store_->write(path("a/b"), "some value"));
  EXPECT_EQ(store_->read(path("a/b")).value_or("?"), "some value");
  EXPECT_EQ(other_->read(path("a/b")).value_or("?"), "some value");
  ASSERT_TRUE(store_->write(path("a/b"), ""));
  EXPECT_EQ(store_->read(path("a/b")).value_or("?"), "");
  EXPECT_EQ(store_->read(path("a")).value_or("?"), "") << "parents are made, empty";
}

TEST_P(XenStoreContract, ListsChildren) {
  ASSERT_TRUE(store_->write(path("d/one"), "1"));
  ASSERT_TRUE(store_->write(path("d/two"), "2"));
  ASSERT_TRUE(store_->write(path("d/two/deep"), "3"));
  Result<std::vector<std::string>> names = store_->list(path("d"));
  ASSERT_TRUE(names);
  std::sort(names->begin(), names->end());
  EXPECT_EQ(*names, (std::vector<std::string>{"one", "two"}));
  names = store_->list(path("d/one"));
  ASSERT_TRUE(names);
  EXPECT_TRUE(names->empty());
}

TEST_P(XenStoreContract, RemovesWithAllBelow) {
  ASSERT_TRUE(store_->write(path("d/one/deep"), "1"));
  ASSERT_TRUE(store_->remove(path("d")));
  EXPECT_EQ(code(store_->read(path("d/one/deep"))), ErrorCode::not_found);
  EXPECT_EQ(code(store_->read(path("d"))), ErrorCode::not_found);
}

TEST_P(XenStoreContract, RejectsAValueThatIsTooLong) {
  EXPECT_FALSE(store_->write(path("long"), std::string(XenStoreAccess::kMaxValueBytes + 1, 'x')));
}

TEST_P(XenStoreContract, RejectsABadPath) {
  EXPECT_FALSE(store_->write(path("a b"), "x"));
  EXPECT_FALSE(store_->write(path("a//b"), "x"));
  EXPECT_FALSE(store_->write("", "x"));
}

TEST_P(XenStoreContract, RejectsANullByteInAPath) {
  const std::string bad("a\0b", 3);
  EXPECT_EQ(code(store_->write(path(bad), "x")), ErrorCode::invalid_argument);
  EXPECT_EQ(code(store_->watch(path(bad), "t")), ErrorCode::invalid_argument);
  EXPECT_EQ(code(store_->read(path("a"))), ErrorCode::not_found) << "nothing of it was written";
}

// xenstored refuses what is wrong, and goes on.
TEST_P(XenStoreContract, WhatIsWrongLosesNoConnection) {
  EXPECT_EQ(code(store_->write(path("a b"), "x")), ErrorCode::invalid_argument);
  EXPECT_TRUE(store_->write(path("a"), "x"));
  EXPECT_FALSE(readable(store_->fd()));
}

TEST_P(XenStoreContract, ListsAreOfAnyLength) {
  ASSERT_TRUE(store_->watch(path("w"), "t"));
  EXPECT_EQ(wait_event().path, path("w"));
  std::vector<std::string> names;
  for (int child = 0; child < 400; ++child) {
    names.push_back("a-child-with-a-long-name-" + std::to_string(1000 + child));
    ASSERT_TRUE(store_->write(path("many/" + names.back()), "1"));
  }
  Result<std::vector<std::string>> listed = store_->list(path("many"));
  ASSERT_TRUE(listed) << listed.error().message;
  std::sort(listed->begin(), listed->end());
  EXPECT_EQ(*listed, names);
  ASSERT_TRUE(other_->write(path("w"), "1"));
  EXPECT_EQ(wait_event().path, path("w")) << "the connection and its watches last";
}

TEST_P(XenStoreContract, WhatIsNoPathIsNotListed) {
  EXPECT_EQ(code(store_->list(path("a b"))), ErrorCode::invalid_argument);
  EXPECT_EQ(code(store_->list("")), ErrorCode::invalid_argument);
  EXPECT_EQ(code(store_->list(path(std::string("a\0b", 3)))), ErrorCode::invalid_argument);
  EXPECT_EQ(code(store_->list(path(std::string(XenStoreAccess::kMaxValueBytes, 'a')))),
            ErrorCode::invalid_argument);
  EXPECT_EQ(code(store_->read(path(std::string(XenStoreAccess::kMaxValueBytes, 'a')))),
            ErrorCode::invalid_argument);
  ASSERT_TRUE(store_->write(path("d/a"), "x"));
  EXPECT_EQ(store_->list(path("d")).value_or(std::vector<std::string>{}),
            std::vector<std::string>{"a"});
  EXPECT_FALSE(readable(store_->fd()));
}

TEST_P(XenStoreContract, AWatchFiresAtRegistration) {
  ASSERT_TRUE(store_->watch(path("w"), "token"));
  const WatchEvent event = wait_event();
  EXPECT_EQ(event.path, path("w"));
  EXPECT_EQ(event.token, "token");
  EXPECT_TRUE(no_event());
  EXPECT_FALSE(readable(store_->fd()));
}

TEST_P(XenStoreContract, AWatchFiresForChangesAtAndBelow) {
  ASSERT_TRUE(store_->watch(path("w"), "t"));
  EXPECT_EQ(wait_event().path, path("w"));
  ASSERT_TRUE(other_->write(path("w"), "1"));
  EXPECT_EQ(wait_event().path, path("w"));
  ASSERT_TRUE(other_->write(path("w/deep/er"), "1"));
  EXPECT_EQ(wait_event().path, path("w/deep/er"));
  ASSERT_TRUE(other_->write(path("wider"), "1"));
  EXPECT_TRUE(no_event()) << "a name that only begins alike is not below";
}

TEST_P(XenStoreContract, AWatchFiresForItsOwnWriter) {
  ASSERT_TRUE(store_->watch(path("w"), "t"));
  EXPECT_EQ(wait_event().path, path("w"));
  ASSERT_TRUE(store_->write(path("w"), "1"));
  EXPECT_EQ(wait_event().path, path("w"));
}

TEST_P(XenStoreContract, AWatchFiresWhenItsNodeOrOneAboveIsRemoved) {
  ASSERT_TRUE(store_->write(path("up/w"), "1"));
  ASSERT_TRUE(store_->watch(path("up/w"), "t"));
  EXPECT_EQ(wait_event().path, path("up/w"));
  ASSERT_TRUE(other_->remove(path("up")));
  EXPECT_EQ(wait_event().path, path("up/w"));
}

TEST_P(XenStoreContract, NoEventsAfterUnwatch) {
  ASSERT_TRUE(store_->watch(path("w"), "t"));
  EXPECT_EQ(wait_event().path, path("w"));
  ASSERT_TRUE(other_->write(path("w"), "1"));
  store_->unwatch(path("w"), "t");
  EXPECT_TRUE(no_event()) << "not even one that had been queued";
  ASSERT_TRUE(other_->write(path("w"), "2"));
  EXPECT_TRUE(no_event());
}

TEST_P(XenStoreContract, SpecialWatchesCanBeRegistered) {
  ASSERT_TRUE(store_->watch("@releaseDomain", "released"));
  EXPECT_EQ(wait_event().token, "released");
  store_->unwatch("@releaseDomain", "released");
}

TEST_P(XenStoreContract, ATransactionIsSeenAsAWhole) {
  ASSERT_TRUE(store_->write(path("t/a"), "old"));
  int runs = 0;
  ASSERT_TRUE(store_->transaction([&](XenStoreAccess& at) -> Result<void> {
    ++runs;
    EXPECT_EQ(at.read(path("t/a")).value_or("?"), "old");
    EXPECT_TRUE(at.write(path("t/a"), "new"));
    EXPECT_TRUE(at.write(path("t/b"), "new"));
    EXPECT_EQ(at.read(path("t/a")).value_or("?"), "new") << "it sees its own writes";
    EXPECT_EQ(other_->read(path("t/a")).value_or("?"), "old") << "others do not";
    return {};
  }));
  EXPECT_EQ(runs, 1);
  EXPECT_EQ(other_->read(path("t/a")).value_or("?"), "new");
  EXPECT_EQ(other_->read(path("t/b")).value_or("?"), "new");
}

TEST_P(XenStoreContract, ATransactionThatGivesUpWritesNothing) {
  ASSERT_TRUE(store_->write(path("t/a"), "old"));
  const Result<void> done = store_->transaction([&](XenStoreAccess& at) -> Result<void> {
    EXPECT_TRUE(at.write(path("t/a"), "new"));
    return fail(ErrorCode::protocol, "changed my mind");
  });
  EXPECT_EQ(code(done), ErrorCode::protocol);
  EXPECT_EQ(store_->read(path("t/a")).value_or("?"), "old");
}

TEST_P(XenStoreContract, AConflictRunsTheTransactionAgain) {
  ASSERT_TRUE(store_->write(path("t/a"), "1"));
  int runs = 0;
  ASSERT_TRUE(store_->transaction([&](XenStoreAccess& at) -> Result<void> {
    const std::string seen = at.read(path("t/a")).value_or("?");
    if (++runs == 1) {
      EXPECT_TRUE(other_->write(path("t/a"), "2"));
    }
    EXPECT_TRUE(at.write(path("t/seen"), seen));
    return {};
  }));
  EXPECT_EQ(runs, 2);
  EXPECT_EQ(store_->read(path("t/seen")).value_or("?"), "2");
}

TEST_P(XenStoreContract, ATransactionRemoves) {
  ASSERT_TRUE(store_->write(path("t/a"), "1"));
  ASSERT_TRUE(store_->transaction([&](XenStoreAccess& at) -> Result<void> {
    EXPECT_TRUE(at.remove(path("t/a")));
    EXPECT_EQ(code(at.remove(path("t/a"))), ErrorCode::not_found);
    return {};
  }));
  EXPECT_EQ(code(store_->read(path("t/a"))), ErrorCode::not_found);
}

// A connection that is lost tells so to who waits for events, and fails every call alike.
class LostXenStoreContract : public XenStoreContract {
 protected:
  void SetUp() override {
    XenStoreContract::SetUp();
    if (HasFatalFailure()) {
      return;
    }
    ASSERT_TRUE(store_->watch(path("w"), "t"));
    EXPECT_EQ(wait_event().path, path("w"));
  }
  void TearDown() override {}  // there is nothing to remove the folder from

  static constexpr std::chrono::milliseconds kHangs{50};

  void expect_lost() {
    EXPECT_TRUE(readable(store_->fd(), kWaitMilliseconds));
    EXPECT_EQ(code(store_->next_event()), ErrorCode::unavailable);
    EXPECT_EQ(code(store_->read(path("a"))), ErrorCode::unavailable);
    EXPECT_EQ(code(store_->write(path("a"), "1")), ErrorCode::unavailable);
    EXPECT_EQ(code(store_->remove(path("a"))), ErrorCode::unavailable);
    EXPECT_EQ(code(store_->list(path("a"))), ErrorCode::unavailable);
    EXPECT_EQ(code(store_->watch(path("a"), "u")), ErrorCode::unavailable);
    EXPECT_EQ(code(store_->transaction([](XenStoreAccess&) -> Result<void> { return {}; })),
              ErrorCode::unavailable);
    store_->unwatch(path("w"), "t");
    EXPECT_TRUE(readable(store_->fd()));
    EXPECT_EQ(code(store_->next_event()), ErrorCode::unavailable) << "for good";
  }
};

TEST_P(LostXenStoreContract, TheDeathOfXenstoredIsHeardOfAtOnce) {
  if (!rig_->kill_xenstored()) {
    GTEST_SKIP() << "not this host's xenstored";
  }
  expect_lost();
}

TEST_P(LostXenStoreContract, TheDeathOfXenstoredInATransactionIsNoFaultOfIts) {
  bool killed = false;
  const auto done = store_->transaction([&](XenStoreAccess& at) -> Result<void> {
    EXPECT_TRUE(at.write(path("t"), "1"));
    killed = rig_->kill_xenstored();
    if (!killed) {
      return fail(ErrorCode::io, "not this host's xenstored");
    }
    return at.write(path("t"), "2");
  });
  if (!killed) {
    GTEST_SKIP() << done.error().message;
  }
  EXPECT_EQ(code(done), ErrorCode::unavailable);
  expect_lost();
}

TEST_P(LostXenStoreContract, ANewConnectionFindsWhatXenstoredStillKnows) {
  ASSERT_TRUE(other_->write(path("a"), "1"));
  if (!rig_->kill_xenstored()) {
    GTEST_SKIP() << "not this host's xenstored";
  }
  rig_->start_xenstored();
  auto again = rig_->xenstore();
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ((*again)->read(path("a")).value_or("?"), "1");
}

TEST_P(LostXenStoreContract, WhatIsAskedWhileXenstoredHangsIsAnsweredWhenItGoesOn) {
  if (!rig_->set_xenstored_hung(true)) {
    GTEST_SKIP() << "not this host's xenstored";
  }
  EXPECT_FALSE(readable(store_->fd())) << "nobody has asked";
  const Result<std::optional<WatchEvent>> event = store_->next_event();
  EXPECT_TRUE(event && !event->has_value());
  std::atomic<bool> goes_on = false;
  std::thread later([&] {
    std::this_thread::sleep_for(kHangs);
    goes_on = true;
    (void)rig_->set_xenstored_hung(false);
  });
  EXPECT_EQ(code(store_->read(path("a"))), ErrorCode::not_found);
  EXPECT_TRUE(goes_on);
  later.join();
  EXPECT_TRUE(store_->write(path("w"), "1"));
  EXPECT_EQ(wait_event().path, path("w"));
}

TEST_P(LostXenStoreContract, TheDeathOfXenstoredWithAQuestionUnderWayIsNoAnswerToIt) {
  if (!rig_->set_xenstored_hung(true)) {
    GTEST_SKIP() << "not this host's xenstored";
  }
  std::thread later([&] {
    std::this_thread::sleep_for(kHangs);
    (void)rig_->kill_xenstored();
  });
  EXPECT_EQ(code(store_->read(path("a"))), ErrorCode::unavailable);
  later.join();
  expect_lost();
}

TEST_P(LostXenStoreContract, TheDeathOfXenstoredWithAListUnderWayIsNoAnswerToIt) {
  if (!rig_->set_xenstored_hung(true)) {
    GTEST_SKIP() << "not this host's xenstored";
  }
  std::thread later([&] {
    std::this_thread::sleep_for(kHangs);
    (void)rig_->kill_xenstored();
  });
  EXPECT_EQ(code(store_->list(path("a"))), ErrorCode::unavailable);
  later.join();
  expect_lost();
}

TEST_P(LostXenStoreContract, WhatHappensWhileXenstoredHangsIsHeardOfWhenItGoesOn) {
  if (!rig_->set_xenstored_hung(true)) {
    GTEST_SKIP() << "not this host's xenstored";
  }
  EXPECT_FALSE(readable(store_->fd()));
  ASSERT_TRUE(rig_->set_xenstored_hung(false));
  ASSERT_TRUE(other_->write(path("w"), "1"));
  EXPECT_EQ(wait_event().path, path("w"));
}

std::vector<StoreKind> store_kinds() {
  return g_real ? std::vector{StoreKind::real}
                : std::vector{StoreKind::memory, StoreKind::wire, StoreKind::wire_of_oxenstored};
}

std::string name_of(const testing::TestParamInfo<StoreKind>& kind) {
  return kind.param == StoreKind::memory               ? "InMemory"
         : kind.param == StoreKind::wire               ? "OverTheWire"
         : kind.param == StoreKind::wire_of_oxenstored ? "OverTheWireOfOxenstored"
                                                       : "Real";
}

INSTANTIATE_TEST_SUITE_P(Of, XenStoreContract, testing::ValuesIn(store_kinds()), name_of);
INSTANTIATE_TEST_SUITE_P(Of, LostXenStoreContract, testing::ValuesIn(store_kinds()), name_of);

// --- domains -----------------------------------------------------------------------------------

TEST_F(XenContract, ADomainThatRunsIsRunning) {
  const auto info = rig_->domain_info();
  ASSERT_TRUE(info) << info.error().message;
  const Result<DomainStatus> status = (*info)->status(rig_->guest());
  ASSERT_TRUE(status) << status.error().message;
  EXPECT_EQ(status->life, DomainLife::running);
}

TEST_F(XenContract, ADomainThatDoesNotExistIsGone) {
  const auto info = rig_->domain_info();
  ASSERT_TRUE(info) << info.error().message;
  const Result<DomainStatus> status = (*info)->status(32000);
  ASSERT_TRUE(status) << status.error().message;
  EXPECT_EQ(status->life, DomainLife::gone);
}

}  // namespace
}  // namespace iscsi_blkback

int main(int argc, char** argv) {
  // Before the tests are made, since it decides which there are.
  iscsi_blkback::g_real = std::any_of(argv, argv + argc, [](const char* argument) {
    return std::string_view(argument) == "--real";
  });
  testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) != "--real") {
      std::fprintf(stderr, "usage: %s [--real] [googletest's options]\n", argv[0]);
      return 2;
    }
  }
  return RUN_ALL_TESTS();
}
