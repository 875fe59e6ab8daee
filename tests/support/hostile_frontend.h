// HostileFrontend: one disk's frontend as a program, for a guest that has a real backend opposite, or
// one of a test. Each mode does one kind of harm for a time, then behaves and expects its disk to
// work again: whatever a guest does, it may start anew. See blkif.h for the handshake. One thread;
// what changes memory meanwhile runs beside it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/front_ring.h"
#include "tests/support/guest_platform.h"
#include "tests/support/sim_random.h"

namespace iscsi_blkback {

class HostileFrontend {
 public:
  struct Options {
    std::uint32_t device_id = 51728;  // xvdb
    GuestPlatform::Time duration{};
    std::uint64_t seed = 1;
  };

  HostileFrontend(GuestPlatform& guest, Options options);
  ~HostileFrontend();
  HostileFrontend(const HostileFrontend&) = delete;
  HostileFrontend& operator=(const HostileFrontend&) = delete;

  // reconnect     a good one, whose kernel is replaced by another without a word, with requests
  //               under way: all that was acknowledged is there, nothing is written into the old
  //               kernel's memory once the new one is offered a ring
  // flap          state nodes and keys as fast as xenstore goes
  // bad-requests  malformed requests of all kinds, good ones among them, in memory that changes
  // bad-ring      indices, references, ports and counts from the moon
  // storm         the ring full of reads, the doorbell all the time
  // busy          a good one that does as much as it can: what the others are compared with
  // greedy        a good one that burns two processors beside that, as a storm does
  static constexpr std::array<std::string_view, 7> kModes = {
      "reconnect", "flap", "bad-requests", "bad-ring", "storm", "busy", "greedy"};

  // Empty: it went as it should; else one sentence. mode: one of kModes.
  [[nodiscard]] std::string run(std::string_view mode);
  // What it has done, for the log.
  [[nodiscard]] std::string summary() const;

 private:
  struct Connection {
    GuestPlatform::Pages ring;
    std::array<GuestPlatform::Pages, 8> data;  // kGroupPages each
    std::uint32_t port = 0;
    std::optional<FrontRing> front;
  };
  // A read or a write of one page.
  struct Io {
    std::uint8_t operation = 0;
    std::uint64_t sector = 0;
    std::size_t page = 0;
    std::optional<std::int16_t> status = {};
  };
  static constexpr std::size_t kGroupPages = 16;
  static constexpr std::size_t kDataPages = 8 * kGroupPages;
  static constexpr std::size_t kBlocks = 24;  // of a page each, that good ones write and compare
  static constexpr GuestPlatform::Time kPatience = std::chrono::seconds(30);

  [[nodiscard]] std::string reconnect();
  [[nodiscard]] std::string flap();
  [[nodiscard]] std::string bad_requests();
  [[nodiscard]] std::string bad_ring();
  enum class Doorbell : std::uint8_t { when_it_sleeps, never_sleeps, all_the_time };
  [[nodiscard]] std::string full_rings(Doorbell rings);
  [[nodiscard]] std::string behave();

  [[nodiscard]] std::string key(std::string_view name) const;
  [[nodiscard]] int backend_state();
  [[nodiscard]] bool backend_reaches(int state);
  void set_state(int state);
  [[nodiscard]] bool goes_on() { return guest_.now() < end_; }

  [[nodiscard]] std::string share_all(Connection& connection);
  void drop(Connection& connection);
  void clear_keys();
  // The frontend is in state 1, the backend in 2.
  [[nodiscard]] std::string connect();
  [[nodiscard]] std::string start_over();

  [[nodiscard]] std::span<std::byte> page(std::size_t index) const;
  [[nodiscard]] GrantReference page_reference(std::size_t index) const;
  [[nodiscard]] BlkifRequest request_of(const Io& io, std::uint64_t id) const;
  void show();
  [[nodiscard]] std::string exchange(std::vector<Io>& all);
  [[nodiscard]] std::string write_blocks(std::uint32_t generation);
  [[nodiscard]] std::string compare_blocks();

  [[nodiscard]] BlkifRequest bad_request();
  [[nodiscard]] GrantReference any_reference();
  void stir();
  [[nodiscard]] std::string regrant();

  GuestPlatform& guest_;
  const Options options_;
  SimRandom random_;
  SimRandom beside_random_;
  const std::string frontend_;
  std::string backend_;
  DomainId backend_domain_ = 0;
  std::uint64_t sectors_ = 0;
  GuestPlatform::Time end_{};
  Connection connection_;
  std::vector<GrantReference> taken_back_;

  std::array<std::uint32_t, kBlocks> written_{};  // generations acknowledged; 0: none
  std::array<std::uint32_t, kBlocks> maybe_{};    // sent and not answered; 0: none

  std::uint64_t rounds_ = 0;
  std::uint64_t sent_ = 0;
  std::uint64_t answered_ = 0;
};

}  // namespace iscsi_blkback
