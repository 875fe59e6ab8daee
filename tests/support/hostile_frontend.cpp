#include "tests/support/hostile_frontend.h"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <utility>

#include "blkback/ring/copy_once.h"

namespace iscsi_blkback {
namespace {

// XenbusState's numbers (xen/io/xenbus.h).
constexpr int kStarts = 1;
constexpr int kIsOfferedARing = 2;
constexpr int kOffersItsRing = 3;
constexpr int kIsConnected = 4;
constexpr int kIsClosed = 6;

constexpr GuestPlatform::Time kMoment{1000};

// Numbers below it may be grants of the guest's kernel: of its console, of xenstore's ring, of another
// disk. Who names those harms only itself, but cannot go on then.
constexpr GrantReference kNobodysReference = 1U << 20;

constexpr std::string_view kNoReferences[] = {
    "1048576", "2147483647", "2147483648", "4294967295", "4294967296", "99999999999999999999",
    "-1",      "+1",         "1 ",         " 1",         "0x10",       "1e3",
    "",        "\x1b[2J",    "none",       "%n%s"};
constexpr std::string_view kBadNumbers[] = {
    "0",    "1",    "2",       "3",          "4",          "5",          "8",     "16",
    "63",   "4095", "131072",  "2147483648", "4294967295", "4294967296", "-1",    "1 ",
    "0x10", "",     "\x1b[2J", "none",       "x86_32-abi", "x86_64-abi", "native"};
constexpr std::string_view kQueueKeys[] = {"ring-ref",
                                           "ring-ref0",
                                           "ring-ref1",
                                           "event-channel",
                                           "ring-page-order",
                                           "queue-0/ring-ref",
                                           "queue-0/event-channel",
                                           "queue-1/ring-ref",
                                           "queue-1/event-channel",
                                           "multi-queue-num-queues",
                                           "protocol"};

std::string_view bad_value(std::string_view name, SimRandom& random) {
  return name.find("ring-ref") != std::string_view::npos
             ? kNoReferences[random.below(std::size(kNoReferences))]
             : kBadNumbers[random.below(std::size(kBadNumbers))];
}
std::string_view any_key(SimRandom& random) {
  return kQueueKeys[random.below(std::size(kQueueKeys))];
}

std::uint64_t number_of(const std::optional<std::string>& text, std::uint64_t otherwise) {
  std::uint64_t value = otherwise;
  if (text) {
    std::from_chars(text->data(), text->data() + text->size(), value);
  }
  return value;
}

void fill(std::span<std::byte> page, std::size_t block, std::uint32_t generation) {
  SimRandom words((std::uint64_t{generation} << 32) | block);
  for (std::size_t at = 0; at < page.size(); at += sizeof(std::uint64_t)) {
    const std::uint64_t word = words.next();
    std::memcpy(page.data() + at, &word, sizeof(word));
  }
}

bool holds(std::span<const std::byte> page, std::size_t block, std::uint32_t generation) {
  std::array<std::byte, kXenPageBytes> expected;
  fill(expected, block, generation);
  return std::equal(page.begin(), page.end(), expected.begin());
}

}  // namespace

HostileFrontend::HostileFrontend(GuestPlatform& guest, Options options)
    : guest_(guest),
      options_(options),
      random_(options.seed),
      beside_random_(~options.seed),
      frontend_("/local/domain/" + std::to_string(guest.own_domain()) + "/device/vbd/" +
                std::to_string(options.device_id)) {}

HostileFrontend::~HostileFrontend() {
  guest_.stop_beside();
  drop(connection_);
}

std::string HostileFrontend::run(std::string_view mode) {
  const std::optional<std::string> backend = guest_.read(key("backend"));
  if (!backend) {
    return "there is no " + key("backend");
  }
  backend_ = *backend;
  backend_domain_ = static_cast<DomainId>(number_of(guest_.read(key("backend-id")), 0));
  end_ = guest_.now() + options_.duration;
  std::string wrong;
  if (mode == "reconnect") {
    wrong = reconnect();
  } else if (mode == "flap") {
    wrong = flap();
  } else if (mode == "bad-requests") {
    wrong = bad_requests();
  } else if (mode == "bad-ring") {
    wrong = bad_ring();
  } else if (mode == "storm") {
    wrong = full_rings(Doorbell::all_the_time);
  } else if (mode == "busy") {
    wrong = full_rings(Doorbell::when_it_sleeps);
  } else if (mode == "greedy") {
    wrong = full_rings(Doorbell::never_sleeps);
  } else {
    return "there is no mode " + std::string(mode);
  }
  guest_.stop_beside();
  return wrong.empty() ? behave() : wrong;
}

std::string HostileFrontend::summary() const {
  return std::to_string(rounds_) + " rounds, " + std::to_string(sent_) + " requests, " +
         std::to_string(answered_) + " answers";
}

// --- the modes ---------------------------------------------------------------------------------

std::string HostileFrontend::reconnect() {
  std::string wrong = start_over();
  if (wrong.empty()) {
    wrong = connect();
  }
  for (std::uint32_t generation = 1; wrong.empty() && (goes_on() || generation < 4);
       generation += 2) {
    ++rounds_;
    if (wrong = write_blocks(generation); !wrong.empty()) {
      break;
    }
    // Under way when the kernel is replaced: writes of the next generation, and reads.
    for (std::size_t block = 0; block < 8; ++block) {
      maybe_[block] = generation + 1;
      fill(page(block), block, generation + 1);
      connection_.front->put(request_of({kBlkifWrite, block * kSectorsPerPage, block}, block));
      connection_.front->put(
          request_of({kBlkifRead, block * kSectorsPerPage, kBlocks + block}, kBlocks + block));
      sent_ += 2;
    }
    show();
    if (random_.one_in(2)) {
      guest_.wait(GuestPlatform::Time(random_.below(3000)));
    }
    Connection former = std::exchange(connection_, Connection{});
    set_state(kStarts);
    if (!backend_reaches(kIsOfferedARing)) {
      wrong = "the backend offers no new ring to a kernel that has replaced another";
    }
    // From now on the former kernel's memory is used for something else.
    for (const GuestPlatform::Pages& pages : former.data) {
      std::fill(pages.bytes.begin(), pages.bytes.end(), std::byte{0xa5});
    }
    if (wrong.empty()) {
      wrong = connect();
    }
    if (wrong.empty()) {
      wrong = compare_blocks();
    }
    for (const GuestPlatform::Pages& pages : former.data) {
      if (std::any_of(pages.bytes.begin(), pages.bytes.end(),
                      [](std::byte byte) { return byte != std::byte{0xa5}; })) {
        wrong = "a late answer came into the memory of the former kernel";
      }
    }
    drop(former);
  }
  return wrong;
}

std::string HostileFrontend::flap() {
  constexpr std::string_view kStates[] = {"1", "2", "3", "4", "5", "6",  "7",
                                          "8", "0", "9", "",  "x", "44", "\x01"};
  const std::string huge(1500, '3');
  std::string wrong = start_over();
  if (wrong.empty()) {
    wrong = connect();
  }
  if (!wrong.empty()) {
    return wrong;
  }
  while (goes_on()) {
    ++rounds_;
    // Requests are under way while their ring comes and goes, as long as it takes any.
    if (!connection_.front->full()) {
      const Io io{kBlkifRead, random_.below(sectors_ / kSectorsPerPage) * kSectorsPerPage, 0};
      connection_.front->put(request_of(io, sent_++));
      show();
    }
    switch (random_.below(12)) {
      case 0: {
        const std::string_view name = any_key(random_);
        guest_.write(key(name), bad_value(name, random_));
        break;
      }
      case 1:
        guest_.write(key(any_key(random_)), huge);
        break;
      case 2:
        guest_.remove(key(random_.one_in(2) ? "state" : any_key(random_)));
        break;
      default:
        guest_.write(key("state"), kStates[random_.below(random_.one_in(3) ? 14 : 6)]);
        break;
    }
  }
  return {};
}

std::string HostileFrontend::bad_requests() {
  bool up = false;
  std::string wrong;
  while (goes_on() && wrong.empty()) {
    ++rounds_;
    if (!up) {
      guest_.stop_beside();
      wrong = start_over();
      if (wrong.empty()) {
        wrong = connect();
      }
      if (!wrong.empty()) {
        break;
      }
      guest_.run_beside([this] { stir(); });
      up = true;
    }
    for (std::uint64_t left = random_.between(1, 32); left > 0 && !connection_.front->full();
         --left) {
      connection_.front->put(bad_request());
      ++sent_;
    }
    (void)connection_.front->push();
    guest_.notify(connection_.port);
    if (random_.one_in(16)) {
      guest_.stop_beside();
      if (wrong = regrant(); !wrong.empty()) {
        break;
      }
      guest_.run_beside([this] { stir(); });
    }
    guest_.wait(kMoment);
    const std::optional<std::uint32_t> waiting = connection_.front->waiting();
    for (std::uint32_t left = waiting.value_or(0); left > 0; --left) {
      (void)connection_.front->take();  // its slot may have been written over
      ++answered_;
    }
    if (!waiting || connection_.front->full() || random_.one_in(64)) {
      up = waiting && !random_.one_in(8) && backend_state() == kIsConnected;
    }
  }
  return wrong;
}

std::string HostileFrontend::bad_ring() {
  std::string wrong;
  while (goes_on() && wrong.empty()) {
    ++rounds_;
    if (wrong = start_over(); !wrong.empty()) {
      break;
    }
    if (random_.one_in(3)) {
      // A ring that is one, until its index leaves.
      if (wrong = connect(); !wrong.empty()) {
        break;
      }
      for (int i = 0; i < 4; ++i) {
        const auto index =
            static_cast<std::uint32_t>(random_.next() >> (random_.one_in(2) ? 58 : 32));
        connection_.front->set_request_producer(index);
        guest_.notify(connection_.port);
        guest_.wait(kMoment);
      }
      continue;
    }
    if (wrong = share_all(connection_); !wrong.empty()) {
      break;
    }
    clear_keys();
    // Good values first, then some of them bad ones.
    const std::string good = std::to_string(connection_.ring.references[0]);
    const std::string port = std::to_string(connection_.port);
    const bool queues = random_.one_in(2);
    const std::string prefix = queues ? "queue-0/" : "";
    if (queues) {
      guest_.write(key("multi-queue-num-queues"), "2");
      guest_.write(key("queue-1/ring-ref"), good);
      guest_.write(key("queue-1/event-channel"), port);
    }
    guest_.write(key(prefix + "ring-ref"), good);
    guest_.write(key(prefix + "event-channel"), port);
    guest_.write(key("protocol"), "x86_64-abi");
    for (std::uint64_t left = random_.between(1, 4); left > 0; --left) {
      const std::string_view name = any_key(random_);
      if (random_.one_in(5)) {
        guest_.remove(key(name));
      } else if (random_.one_in(4)) {
        guest_.write(key(name), std::to_string(any_reference()));
      } else {
        guest_.write(key(name), bad_value(name, random_));
      }
    }
    set_state(kOffersItsRing);
    for (int i = 0; i < 20 && backend_state() == kIsOfferedARing; ++i) {
      guest_.wait(kMoment);
    }
    guest_.notify(connection_.port);
    guest_.wait(kMoment);
  }
  return wrong;
}

std::string HostileFrontend::full_rings(Doorbell rings) {
  std::string wrong = start_over();
  if (wrong.empty()) {
    wrong = connect();
  }
  if (!wrong.empty()) {
    return wrong;
  }
  FrontRing& front = *connection_.front;
  if (rings == Doorbell::all_the_time) {
    guest_.run_beside([this] { guest_.notify(connection_.port); });
  } else if (rings == Doorbell::never_sleeps) {
    guest_.run_beside([] {});
  }
  std::uint32_t under_way = 0;
  GuestPlatform::Time heard = guest_.now();
  while (goes_on() || under_way > 0) {
    ++rounds_;
    while (goes_on() && !front.full()) {
      const std::size_t at = random_.below(kDataPages);
      const std::uint64_t sector = random_.below(sectors_ / kSectorsPerPage) * kSectorsPerPage;
      front.put(request_of({kBlkifRead, sector, at}, at));
      ++sent_;
      ++under_way;
    }
    show();
    if (!front.final_check()) {
      guest_.wait(rings == Doorbell::when_it_sleeps ? kMoment : GuestPlatform::Time(0));
    }
    const std::optional<std::uint32_t> waiting = front.waiting();
    if (!waiting) {
      return "there are more answers than requests";
    }
    for (std::uint32_t left = *waiting; left > 0; --left, --under_way) {
      heard = guest_.now();
      const FrontRing::Response response = front.take();
      ++answered_;
      if (response.status != kBlkifOkay || response.operation != kBlkifRead ||
          !response.padding_is_clean) {
        return "a read failed with status " + std::to_string(response.status);
      }
    }
    if (guest_.now() - heard > kPatience) {
      return "reads are not answered, state " + std::to_string(backend_state());
    }
  }
  return {};
}

// The disk is usable again, and its frontend leaves as it should.
std::string HostileFrontend::behave() {
  std::string wrong = start_over();
  if (wrong.empty()) {
    wrong = connect();
  }
  if (wrong.empty()) {
    maybe_.fill(0);
    wrong = write_blocks(0x7fffffff);
  }
  if (wrong.empty()) {
    wrong = compare_blocks();
  }
  set_state(kIsClosed);
  if (wrong.empty() && !backend_reaches(kIsClosed)) {
    wrong = "the backend does not close, state " + std::to_string(backend_state());
  }
  drop(connection_);
  return wrong;
}

// --- the handshake -----------------------------------------------------------------------------

std::string HostileFrontend::key(std::string_view name) const {
  return frontend_ + "/" + std::string(name);
}

int HostileFrontend::backend_state() {
  return static_cast<int>(number_of(guest_.read(backend_ + "/state"), 0));
}

bool HostileFrontend::backend_reaches(int state) {
  const GuestPlatform::Time until = guest_.now() + kPatience;
  while (backend_state() != state) {
    if (guest_.now() > until) {
      return false;
    }
    guest_.wait(kMoment);
  }
  return true;
}

void HostileFrontend::set_state(int state) {
  guest_.write(key("state"), std::to_string(state));
}

std::string HostileFrontend::share_all(Connection& connection) {
  drop(connection);
  connection.ring = guest_.share(backend_domain_, 1, true);
  connection.port = guest_.offer_port(backend_domain_);
  bool all = !connection.ring.bytes.empty() && connection.port != 0;
  for (GuestPlatform::Pages& group : connection.data) {
    group = guest_.share(backend_domain_, kGroupPages, true);
    all = all && !group.bytes.empty();
  }
  if (!all) {
    return "the guest's kernel grants no pages or has no event channel";
  }
  connection.front.emplace(connection.ring.bytes, BlkifAbi::x86_64);
  return {};
}

void HostileFrontend::drop(Connection& connection) {
  connection.front.reset();
  if (!connection.ring.bytes.empty()) {
    guest_.unshare(connection.ring);
  }
  for (GuestPlatform::Pages& group : connection.data) {
    if (!group.bytes.empty()) {
      guest_.unshare(group);
    }
  }
  if (const std::uint32_t port = std::exchange(connection.port, 0); port != 0) {
    guest_.close_port(port);
  }
}

void HostileFrontend::clear_keys() {
  for (const std::string_view name : kQueueKeys) {
    guest_.remove(key(name));
  }
}

std::string HostileFrontend::connect() {
  if (std::string wrong = share_all(connection_); !wrong.empty()) {
    return wrong;
  }
  clear_keys();
  guest_.write(key("ring-ref"), std::to_string(connection_.ring.references[0]));
  guest_.write(key("event-channel"), std::to_string(connection_.port));
  guest_.write(key("protocol"), "x86_64-abi");
  set_state(kOffersItsRing);
  if (!backend_reaches(kIsConnected)) {
    return "the backend does not connect a good ring, state " + std::to_string(backend_state()) +
           ", " + guest_.read(backend_ + "/hotplug-error").value_or("without a reason");
  }
  set_state(kIsConnected);
  sectors_ = number_of(guest_.read(backend_ + "/sectors"), 0);
  return sectors_ >= kBlocks * kSectorsPerPage ? "" : "the disk is too small";
}

std::string HostileFrontend::start_over() {
  set_state(kIsClosed);
  if (!backend_reaches(kIsClosed)) {
    return "the backend does not follow a frontend that has closed, state " +
           std::to_string(backend_state());
  }
  drop(connection_);
  set_state(kStarts);
  return backend_reaches(kIsOfferedARing)
             ? std::string()
             : "the backend does not follow a frontend that starts, state " +
                   std::to_string(backend_state());
}

// --- good requests -----------------------------------------------------------------------------

std::span<std::byte> HostileFrontend::page(std::size_t index) const {
  return connection_.data[index / kGroupPages].bytes.subspan(index % kGroupPages * kXenPageBytes,
                                                             kXenPageBytes);
}

GrantReference HostileFrontend::page_reference(std::size_t index) const {
  return connection_.data[index / kGroupPages].references[index % kGroupPages];
}

BlkifRequest HostileFrontend::request_of(const Io& io, std::uint64_t id) const {
  BlkifRequest request;
  request.operation = io.operation;
  request.segment_count = 1;
  request.id = id;
  request.sector = io.sector;
  request.segments[0] = BlkifSegment{page_reference(io.page), 0, kSectorsPerPage - 1, 0};
  return request;
}

void HostileFrontend::show() {
  if (connection_.front->push()) {
    guest_.notify(connection_.port);
  }
}

// No more than the ring has room for.
std::string HostileFrontend::exchange(std::vector<Io>& all) {
  FrontRing& front = *connection_.front;
  for (std::size_t id = 0; id < all.size(); ++id) {
    front.put(request_of(all[id], id));
    ++sent_;
  }
  show();
  const GuestPlatform::Time until = guest_.now() + kPatience;
  for (std::size_t left = all.size(); left > 0;) {
    const std::optional<std::uint32_t> waiting = front.waiting();
    if (!waiting) {
      return "there are more answers than requests";
    }
    for (std::uint32_t count = *waiting; count > 0; --count, --left) {
      const FrontRing::Response response = front.take();
      ++answered_;
      if (response.id >= all.size() || all[response.id].status || !response.padding_is_clean ||
          response.operation != all[response.id].operation) {
        return "an answer is not to any request: id " + std::to_string(response.id);
      }
      all[response.id].status = response.status;
      if (response.status != kBlkifOkay) {
        return "a request failed with status " + std::to_string(response.status);
      }
    }
    if (left == 0 || front.final_check()) {
      continue;
    }
    if (guest_.now() > until) {
      return "requests are not answered, state " + std::to_string(backend_state());
    }
    guest_.wait(kMoment);
  }
  return {};
}

std::string HostileFrontend::write_blocks(std::uint32_t generation) {
  std::vector<Io> writes;
  for (std::size_t block = 0; block < kBlocks; ++block) {
    fill(page(block), block, generation);
    writes.push_back({kBlkifWrite, block * kSectorsPerPage, block});
  }
  std::string wrong = exchange(writes);
  if (wrong.empty()) {
    written_.fill(generation);
  }
  return wrong;
}

// Twice: what was under way has landed before the ring was offered, or never does.
std::string HostileFrontend::compare_blocks() {
  for (int time = 0; time < 2; ++time) {
    std::vector<Io> reads;
    for (std::size_t block = 0; block < kBlocks; ++block) {
      reads.push_back({kBlkifRead, block * kSectorsPerPage, block});
    }
    if (std::string wrong = exchange(reads); !wrong.empty()) {
      return wrong;
    }
    for (std::size_t block = 0; block < kBlocks; ++block) {
      if (maybe_[block] != 0 && holds(page(block), block, maybe_[block])) {
        written_[block] = maybe_[block];
      } else if (!holds(page(block), block, written_[block])) {
        return "block " + std::to_string(block) + " does not hold what was acknowledged last";
      }
      maybe_[block] = 0;
    }
    guest_.wait(20 * kMoment);
  }
  return {};
}

// --- bad ones ----------------------------------------------------------------------------------

GrantReference HostileFrontend::any_reference() {
  switch (random_.below(12)) {
    case 0:
      return connection_.ring.references[0];
    case 1:
      return static_cast<GrantReference>(random_.next() >> 32) | kNobodysReference;
    case 2:
      return taken_back_.empty() ? 0 : taken_back_[random_.below(taken_back_.size())];
    default:
      return page_reference(random_.below(kDataPages));
  }
}

BlkifRequest HostileFrontend::bad_request() {
  BlkifRequest request;
  request.id = random_.one_in(4) ? random_.below(4) : random_.next();
  request.handle = static_cast<std::uint16_t>(random_.next());
  request.operation =
      static_cast<std::uint8_t>(random_.one_in(8) ? random_.next() & 0xff : random_.below(7));
  const bool good = random_.one_in(3);
  request.sector = good ? random_.below(512) : random_.next() >> random_.below(64);
  request.indirect_operation = static_cast<std::uint8_t>(random_.below(good ? 2 : 8));
  request.discard_flags = static_cast<std::uint8_t>(random_.next());
  request.discard_sectors = good ? random_.between(1, 64) : random_.next() >> random_.below(64);
  request.segment_count = static_cast<std::uint16_t>(
      good ? random_.between(1, 11) : random_.next() >> random_.between(48, 62));
  for (BlkifSegment& segment : request.segments) {
    const auto first = static_cast<std::uint8_t>(random_.below(good ? 8 : 10));
    segment = {any_reference(), first,
               static_cast<std::uint8_t>(good ? random_.between(first, 7) : random_.below(10)),
               static_cast<std::uint16_t>(random_.next())};
  }
  for (GrantReference& reference : request.indirect_references) {
    reference = any_reference();
  }
  if (request.operation == kBlkifIndirect && random_.one_in(2)) {
    // Descriptors that make sense, as long as nothing changes them.
    const std::size_t at = random_.below(kDataPages);
    for (std::size_t i = 0; i < kXenPageBytes / sizeof(BlkifSegment); ++i) {
      store_once(page(at).data() + i * sizeof(BlkifSegment),
                 BlkifSegment{any_reference(), 0, kSectorsPerPage - 1, 0});
    }
    request.indirect_references[0] = page_reference(at);
  }
  return request;
}

// One word, now and then of the ring; its indices seldom, as that is soon over. Where it is a
// reference, it is nobody's.
void HostileFrontend::stir() {
  SimRandom& random = beside_random_;
  std::span<std::byte> target = connection_.data[random.below(connection_.data.size())].bytes;
  std::uint32_t always = kNobodysReference;
  if (random.one_in(1024)) {
    target = connection_.ring.bytes.first(offsetof(SharedRingHeader, padding));
    always = 0;
  } else if (random.one_in(4)) {
    target = connection_.ring.bytes.subspan(sizeof(SharedRingHeader));
  }
  auto* words = reinterpret_cast<std::uint32_t*>(target.data());
  const auto value = static_cast<std::uint32_t>(random.next() >> random.between(32, 60));
  std::atomic_ref(words[random.below(target.size() / sizeof(std::uint32_t))])
      .store(value | always, std::memory_order_relaxed);
}

// Pages of requests that are under way are taken back, and others granted.
std::string HostileFrontend::regrant() {
  GuestPlatform::Pages& group = connection_.data[random_.below(connection_.data.size())];
  taken_back_ = group.references;
  guest_.unshare(group);
  group = guest_.share(backend_domain_, kGroupPages, true);
  return group.bytes.empty() ? "the guest's kernel grants no pages any more" : "";
}

}  // namespace iscsi_blkback
