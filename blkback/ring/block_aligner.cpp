#include "blkback/ring/block_aligner.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

namespace iscsi_blkback {

Result<std::unique_ptr<BlockAligner>> BlockAligner::make(Reactor& reactor, BlockDevice& below,
                                                         std::size_t most_bytes) {
  // Room for the block around each end. Takes memory when it is first used.
  const std::size_t arena_bytes =
      kMaxPartial * (most_bytes + 2 * std::size_t{below.geometry().logical_block_bytes});
  void* arena = mmap(nullptr, arena_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (arena == MAP_FAILED) {
    return tl::unexpected(
        system_error(fmt::format("{} bytes for parts of blocks", arena_bytes), errno));
  }
  (void)madvise(arena, arena_bytes, MADV_DONTDUMP);  // it holds the guest's data
  (void)madvise(arena, arena_bytes, MADV_NOHUGEPAGE);
  return std::unique_ptr<BlockAligner>(
      new BlockAligner(reactor, below, static_cast<std::byte*>(arena), arena_bytes));
}

BlockAligner::BlockAligner(Reactor& reactor, BlockDevice& below, std::byte* arena,
                           std::size_t arena_bytes)
    : below_(below),
      block_sectors_(below.geometry().logical_block_bytes / kSectorBytes),
      arena_(arena),
      arena_bytes_(arena_bytes),
      jobs_(kMaxJobs),
      end_empty_(
          reactor, [](void* self) noexcept { static_cast<BlockAligner*>(self)->end_empty(); },
          this) {
  for (std::size_t i = kMaxPartial; i-- > 0;) {
    free_blocks_.push_back(arena_ + i * (arena_bytes_ / kMaxPartial));
  }
  free_.reserve(kMaxJobs);
  for (Job& job : jobs_) {
    job.owner = this;
    free_.push_back(&job);
  }
}

BlockAligner::~BlockAligner() {
  ISCSI_BLKBACK_ASSERT(under_way() == 0 && waiting_.empty());
  munmap(arena_, arena_bytes_);
}

const Geometry& BlockAligner::geometry() const {
  geometry_ = below_.geometry();
  geometry_.logical_block_bytes = kSectorBytes;
  return geometry_;
}

void BlockAligner::submit(BlockRequest& request) noexcept {
  if (request.operation == BlockOperation::flush ||
      (request.operation == BlockOperation::read && is_whole_blocks(request))) {
    below_.submit(request);
  } else if (!waiting_.empty() || !try_start(request)) {
    waiting_.push_back(request);
  }
}

// False: there is no room.
bool BlockAligner::try_start(BlockRequest& request) noexcept {
  const std::uint64_t mask = block_sectors_ - 1;
  const std::uint64_t asked_end = request.sector + request.sector_count;
  const bool is_discard = request.operation == BlockOperation::discard;
  const bool partial = !is_discard && !is_whole_blocks(request);
  if (free_.empty() || (partial && free_blocks_.empty())) {
    return false;
  }
  Job& job = *free_.back();
  free_.pop_back();
  job.asked = &request;
  job.begun = false;
  job.blocks = nullptr;
  // A discard takes whole blocks only: of the rest, something is wanted.
  job.first = is_discard ? (request.sector + mask) & ~mask : request.sector & ~mask;
  job.end = is_discard ? asked_end & ~mask : (asked_end + mask) & ~mask;
  if (partial) {
    job.blocks = free_blocks_.back();
    free_blocks_.pop_back();
  }
  if (job.first >= job.end) {
    empty_.push_back(job);
    end_empty_.schedule();
    return true;
  }
  if (!job.changes()) {
    begin(job);
    return true;
  }
  changing_.push_back(job);
  partial_ += partial ? 1 : 0;
  if (must_wait(job)) {
    ++held_;
  } else {
    begin(job);
  }
  return true;
}

void BlockAligner::start_waiting() noexcept {
  while (!waiting_.empty() && try_start(waiting_.front())) {
    (void)waiting_.pop_front();
  }
}

bool BlockAligner::must_wait(const Job& job) {
  if (partial_ == 0) {
    return false;
  }
  bool earlier = true;
  bool waits = false;
  changing_.for_each([&](const Job& other) {
    earlier = earlier && &other != &job;
    // Where neither has parts of blocks, they go beside each other, as anywhere.
    waits = waits ||
            (earlier && other.overlaps(job) && (job.blocks != nullptr || other.blocks != nullptr));
  });
  return waits;
}

void BlockAligner::begin(Job& job) noexcept {
  job.begun = true;
  const BlockRequest& asked = *job.asked;
  if (job.blocks == nullptr) {
    ask(job, Step::only, asked.operation, job.first, job.end);
  } else if (asked.operation == BlockOperation::read) {
    ask(job, Step::read_all, BlockOperation::read, job.first, job.end);
  } else if (asked.sector != job.first) {
    ask(job, Step::read_first, BlockOperation::read, job.first, job.first + block_sectors_);
  } else {
    ask(job, Step::read_last, BlockOperation::read, job.end - block_sectors_, job.end);
  }
}

void BlockAligner::ask(Job& job, Step step, BlockOperation operation, std::uint64_t first,
                       std::uint64_t end) noexcept {
  job.step = step;
  job.operation = operation;
  job.sector = first;
  job.sector_count = static_cast<std::uint32_t>(end - first);
  job.data =
      job.blocks != nullptr ? job.blocks + (first - job.first) * kSectorBytes : job.asked->data;
  job.on_complete = [](BlockRequest& request, IoStatus status) noexcept {
    auto& aligner = *static_cast<BlockAligner*>(request.owner);
    Job& asked = static_cast<Job&>(request);
    if (status != IoStatus::ok || !aligner.take_next_step(asked)) {
      aligner.end(asked, status);
    }
  };
  below_.submit(job);
}

bool BlockAligner::take_next_step(Job& job) noexcept {
  if (job.step == Step::only || job.step == Step::write) {
    return false;
  }
  const BlockRequest& asked = *job.asked;
  std::byte* const part = job.blocks + (asked.sector - job.first) * kSectorBytes;
  if (job.step == Step::read_all) {
    std::memcpy(asked.data, part, asked.length_bytes());
    return false;
  }
  const bool ends_inside = asked.sector + asked.sector_count != job.end;
  if (job.step == Step::read_first && ends_inside && job.end - job.first > block_sectors_) {
    ask(job, Step::read_last, BlockOperation::read, job.end - block_sectors_, job.end);
    return true;
  }
  std::memcpy(part, asked.data, asked.length_bytes());
  ask(job, Step::write, BlockOperation::write, job.first, job.end);
  return true;
}

void BlockAligner::end(Job& job, IoStatus status) noexcept {
  BlockRequest& asked = *job.asked;
  const bool changed = job.changes();
  if (changed) {
    job.ListHook<Job>::unlink();
    partial_ -= job.blocks != nullptr ? 1 : 0;
  }
  if (job.blocks != nullptr) {
    free_blocks_.push_back(job.blocks);
  }
  free_.push_back(&job);
  if (changed) {
    begin_held();
  }
  start_waiting();
  asked.on_complete(asked, status);
}

void BlockAligner::begin_held() noexcept {
  if (held_ == 0) {
    return;
  }
  changing_.for_each([this](Job& job) {
    if (!job.begun && !must_wait(job)) {
      --held_;
      begin(job);
    }
  });
}

void BlockAligner::end_empty() noexcept {
  while (Job* job = empty_.pop_front()) {
    BlockRequest& asked = *job->asked;
    free_.push_back(job);
    asked.on_complete(asked, IoStatus::ok);
  }
  start_waiting();
}

}  // namespace iscsi_blkback
