// BlockAligner: a BlockDevice of 512-byte blocks over one whose blocks are larger (4Kn LUNs): what a
// guest asks for goes as it is where it is whole blocks; else the blocks around it are read, and a
// write is put into them. Owned by the disk at the I/O side (OpenDisk). Reactor thread.
//
// A guest is told 512-byte sectors whatever the LUN has, because frontends read any other size in
// three ways (xenbus_node.h); most of them align what they do to physical-sector-size all the same.
//
// A write to a part of a block is a read and a write, between which nothing else may change the
// block: it waits for all earlier writes and discards of its blocks, and later ones wait for it. A
// path that is lost in between is the business of the device below, as of any write.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/block_device.h"
#include "base/intrusive_list.h"
#include "base/reactor.h"
#include "base/result.h"

namespace iscsi_blkback {

class BlockAligner final : public BlockDevice {
 public:
  // So many requests of a guest are under way here at once, and so many of them may be to parts of
  // blocks; more wait.
  static constexpr std::size_t kMaxJobs = 256;
  static constexpr std::size_t kMaxPartial = 32;

  // most_bytes: the largest request. below outlives it. Fails for want of address space.
  [[nodiscard]] static Result<std::unique_ptr<BlockAligner>> make(Reactor& reactor,
                                                                  BlockDevice& below,
                                                                  std::size_t most_bytes);
  ~BlockAligner() override;  // nothing under way
  BlockAligner(const BlockAligner&) = delete;
  BlockAligner& operator=(const BlockAligner&) = delete;

  // That of the device below, in sectors; its blocks are the physical ones.
  [[nodiscard]] const Geometry& geometry() const override;
  void submit(BlockRequest& request) noexcept override;

  [[nodiscard]] std::size_t under_way() const { return kMaxJobs - free_.size(); }

 private:
  enum class Step : std::uint8_t { only, read_first, read_last, write, read_all };

  // What the device below is asked for, of one request.
  struct Job : BlockRequest, ListHook<Job> {
    BlockRequest* asked = nullptr;
    Step step = Step::only;
    bool begun = false;
    std::uint64_t first = 0;      // sectors of whole blocks, from here
    std::uint64_t end = 0;        // up to here
    std::byte* blocks = nullptr;  // of a request to parts of blocks: all of these; else null

    [[nodiscard]] bool changes() const { return asked->operation != BlockOperation::read; }
    [[nodiscard]] bool overlaps(const Job& other) const {
      return first < other.end && other.first < end;
    }
  };
  using JobList = IntrusiveList<Job, Job>;

  BlockAligner(Reactor& reactor, BlockDevice& below, std::byte* arena, std::size_t arena_bytes);

  [[nodiscard]] bool is_whole_blocks(const BlockRequest& request) const {
    return ((request.sector | request.sector_count) & (block_sectors_ - 1)) == 0;
  }
  [[nodiscard]] bool try_start(BlockRequest& request) noexcept;
  void start_waiting() noexcept;
  // An earlier one is in the way of this one.
  [[nodiscard]] bool must_wait(const Job& job);
  void begin(Job& job) noexcept;
  void begin_held() noexcept;
  void ask(Job& job, Step step, BlockOperation operation, std::uint64_t first,
           std::uint64_t end) noexcept;
  [[nodiscard]] bool take_next_step(Job& job) noexcept;
  void end(Job& job, IoStatus status) noexcept;
  void end_empty() noexcept;

  BlockDevice& below_;
  const std::uint64_t block_sectors_;  // of the device below; a LUN with others is another LUN
  mutable Geometry geometry_;
  std::byte* const arena_;  // blocks of kMaxPartial jobs
  const std::size_t arena_bytes_;
  std::vector<std::byte*> free_blocks_;
  std::vector<Job> jobs_;
  std::vector<Job*> free_;
  JobList changing_;                     // writes and discards, in the order in which they came
  std::size_t partial_ = 0;              // those of them that are to parts of blocks
  std::size_t held_ = 0;                 // those that have not begun
  JobList empty_;                        // discards of no whole block, to be answered in this turn
  IntrusiveList<BlockRequest> waiting_;  // for a job
  Deferred end_empty_;
};

}  // namespace iscsi_blkback
