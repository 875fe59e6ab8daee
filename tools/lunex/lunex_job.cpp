#include "tools/lunex/lunex_job.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace iscsi_blkback {
namespace {

constexpr std::uint64_t kMaxBufferBytes = std::uint64_t{1} << 30;

Result<void> check(const LunexJobOptions& options, const Geometry& disk, std::uint64_t region) {
  const std::uint64_t capacity = disk.sector_count * kSectorBytes;
  const std::uint32_t unit = disk.logical_block_bytes;
  const auto invalid = [](std::string sentence) {
    return fail(ErrorCode::invalid_argument, std::move(sentence));
  };
  if (options.block_bytes == 0 || options.block_bytes % unit != 0 ||
      options.offset_bytes % unit != 0 || options.size_bytes % unit != 0) {
    return invalid(fmt::format(
        "block size, offset and size must be multiples of the LUN's logical blocks of {} bytes",
        unit));
  }
  if (options.offset_bytes >= capacity || options.size_bytes > capacity - options.offset_bytes) {
    return invalid(
        fmt::format("offset and size go beyond the end of the LUN, which has {} bytes", capacity));
  }
  if (region < options.block_bytes) {
    return invalid(
        fmt::format("the part of the LUN that is used has {} bytes, less than a block "
                    "of {}",
                    region, options.block_bytes));
  }
  const std::uint64_t most = std::uint64_t{disk.max_transfer_sectors} * kSectorBytes;
  if (most != 0 && options.block_bytes > most) {
    return invalid(fmt::format("the LUN takes at most {} bytes with one command", most));
  }
  if (std::uint64_t{options.block_bytes} * options.depth > kMaxBufferBytes) {
    return invalid(fmt::format("{} requests of {} bytes need more than 1 GiB of buffers",
                               options.depth, options.block_bytes));
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<LunexJob>> LunexJob::create(Reactor& reactor, BlockDevice& device,
                                                   LunexJobOptions options,
                                                   LunexGenerations* generations) {
  ISCSI_BLKBACK_ASSERT((options.reads || options.writes) && options.depth >= 1 &&
                       options.depth <= kMaxLunexDepth && options.requests != 0);
  const Geometry& disk = device.geometry();
  const std::uint64_t capacity = disk.sector_count * kSectorBytes;
  const std::uint64_t region = options.size_bytes != 0
                                   ? options.size_bytes
                                   : capacity - std::min(capacity, options.offset_bytes);
  if (options.lessen_block_bytes) {
    const std::uint64_t command = std::uint64_t{disk.max_transfer_sectors} * kSectorBytes;
    const std::uint64_t most = command == 0 ? region : std::min(region, command);
    const std::uint64_t whole = most / disk.logical_block_bytes * disk.logical_block_bytes;
    options.block_bytes = static_cast<std::uint32_t>(std::min<std::uint64_t>(
        options.block_bytes, std::max<std::uint64_t>(whole, disk.logical_block_bytes)));
  }
  if (auto fits = check(options, disk, region); !fits) {
    return tl::unexpected(fits.error());
  }
  if (options.writes && disk.read_only) {
    return fail(ErrorCode::permission_denied, "the LUN is write-protected");
  }
  const std::uint64_t blocks = (region + options.block_bytes - 1) / options.block_bytes;
  if (generations != nullptr) {
    if (blocks > kMaxLunexVerifiedBlocks) {
      return fail(ErrorCode::invalid_argument,
                  fmt::format("verification of {} blocks needs too much memory; use larger blocks "
                              "or a smaller part of the LUN",
                              blocks));
    }
    if (options.lessen_depth) {
      options.depth = static_cast<std::uint32_t>(std::min<std::uint64_t>(options.depth, blocks));
    }
    if (options.depth > blocks) {
      return fail(ErrorCode::invalid_argument,
                  fmt::format("verification needs a block for each request, and there are only {} "
                              "blocks for {} requests",
                              blocks, options.depth));
    }
    generations->blocks_.resize(blocks);
  }
  const std::size_t page = BufferPool::kPageBytes;
  auto buffers = BufferPool::create((options.block_bytes + page - 1) / page * page, options.depth);
  if (!buffers) {
    return tl::unexpected(buffers.error());
  }
  std::unique_ptr<LunexJob> job(
      new LunexJob(reactor, device, options, generations, std::move(*buffers)));
  job->region_bytes_ = region;
  job->blocks_ = blocks;
  if (!options.runtime && !options.requests) {
    job->options_.requests = blocks;
  }
  return job;
}

LunexJob::LunexJob(Reactor& reactor, BlockDevice& device, const LunexJobOptions& options,
                   LunexGenerations* generations, std::unique_ptr<BufferPool> buffers)
    : reactor_(reactor),
      device_(device),
      options_(options),
      generations_(generations),
      buffers_(std::move(buffers)),
      slots_(options.depth),
      random_state_(options.seed),
      end_timer_(
          reactor, [](void* self) noexcept { static_cast<LunexJob*>(self)->stop(); }, this) {
  for (Slot& slot : slots_) {
    slot.job = this;
    slot.buffer = buffers_->acquire();
    slot.request.data = slot.buffer;
    slot.request.owner = &slot;
    slot.request.on_complete = &LunexJob::on_complete;
    // Not zeroes, which some targets do not store, and not the same in any two blocks.
    for (std::size_t at = 0; at < options_.block_bytes; at += sizeof(std::uint64_t)) {
      const std::uint64_t word = random();
      std::memcpy(slot.buffer + at, &word, sizeof word);
    }
  }
}

LunexJob::~LunexJob() {
  ISCSI_BLKBACK_ASSERT(in_flight_ == 0 && flush_ != Flush::running);
  for (Slot& slot : slots_) {
    buffers_->release(slot.buffer);
  }
}

void LunexJob::start() {
  began_ = reactor_.now();
  started_ = true;
  if (options_.runtime) {
    end_timer_.start_at(began_ + *options_.runtime);
  }
  for (Slot& slot : slots_) {
    next(slot, began_);
  }
}

void LunexJob::stop() {
  stopping_ = true;
  end_timer_.stop();
}

void LunexJob::on_complete(BlockRequest& request, IoStatus status) noexcept {
  Slot& slot = *static_cast<Slot*>(request.owner);
  LunexJob& job = *slot.job;
  const TimePoint now = job.reactor_.now();
  if (request.operation == BlockOperation::flush) {
    job.flush_ = Flush::done;
    if (status != IoStatus::ok) {
      job.note_error(slot, status, now);
    }
    job.result_.elapsed = now - job.began_;
    return;
  }
  job.completed(slot, status, now);
}

void LunexJob::completed(Slot& slot, IoStatus status, TimePoint now) {
  --in_flight_;
  const bool write = slot.request.operation == BlockOperation::write;
  if (generations_ != nullptr) [[unlikely]] {
    std::uint32_t& generation = generations_->blocks_[slot.block];
    generation &= ~LunexGenerations::kBusy;
    if (status == IoStatus::ok && !write) {
      compare(slot);
    } else if (write) {
      generation = status == IoStatus::ok ? generation + 1 : 0;  // after an error it may be either
    }
  }
  if (status == IoStatus::ok) [[likely]] {
    LunexJobResult::Direction& direction = write ? result_.write : result_.read;
    ++direction.requests;
    direction.bytes += slot.request.length_bytes();
    direction.latency.record(now - slot.submitted);
  } else {
    note_error(slot, status, now);
    stop();
  }
  next(slot, now);
}

void LunexJob::next(Slot& slot, TimePoint now) {
  if (stopping_ || (options_.requests && issued_ == *options_.requests)) [[unlikely]] {
    if (in_flight_ == 0) {
      finish(now);
    }
    return;
  }
  const bool write =
      options_.writes && (!options_.reads || random() % 100 >= options_.read_percent);
  slot.block = choose_block(write);
  const std::uint64_t at = options_.offset_bytes + slot.block * options_.block_bytes;
  slot.request.operation = write ? BlockOperation::write : BlockOperation::read;
  slot.request.sector = at / kSectorBytes;
  slot.request.sector_count = bytes_of(slot.block) / kSectorBytes;
  if (generations_ != nullptr) [[unlikely]] {
    if (write) {
      stamp(slot);
    }
    generations_->blocks_[slot.block] |= LunexGenerations::kBusy;
    now = reactor_.now();  // making and comparing blocks is not the disk's latency
  }
  slot.submitted = now;
  ++issued_;
  ++in_flight_;
  device_.submit(slot.request);
}

std::uint64_t LunexJob::choose_block(bool write) {
  std::uint64_t& position = write ? next_write_ : next_read_;
  std::uint64_t block = options_.random ? random() % blocks_ : position;
  // Fewer blocks are busy than there are, so that this ends.
  while (generations_ != nullptr && (generations_->blocks_[block] & LunexGenerations::kBusy) != 0) {
    block = block + 1 == blocks_ ? 0 : block + 1;
  }
  position = block + 1 == blocks_ ? 0 : block + 1;
  return block;
}

std::uint32_t LunexJob::bytes_of(std::uint64_t block) const {
  const std::uint64_t left = region_bytes_ - block * options_.block_bytes;
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(left, options_.block_bytes));
}

// Each logical block carries its own stamp: a command that was executed in part shows.
void LunexJob::stamp(Slot& slot) {
  const std::uint32_t unit = device_.geometry().logical_block_bytes;
  PatternStamp stamp{generations_->run_, slot.request.sector * kSectorBytes / unit,
                     generations_->blocks_[slot.block] + 1};
  for (std::size_t at = 0; at < slot.request.length_bytes(); at += unit) {
    fill_pattern({slot.buffer + at, unit}, stamp);
    ++stamp.block;
  }
}

void LunexJob::compare(const Slot& slot) {
  const std::uint32_t generation = generations_->blocks_[slot.block];
  if (generation == 0) {
    return;  // not written by this run
  }
  const std::uint32_t unit = device_.geometry().logical_block_bytes;
  PatternStamp stamp{generations_->run_, slot.request.sector * kSectorBytes / unit, generation};
  for (std::size_t at = 0; at < slot.request.length_bytes(); at += unit) {
    const auto mismatch = check_pattern({slot.buffer + at, unit}, stamp);
    if (mismatch) [[unlikely]] {
      if (!result_.mismatch || mismatch->expected.block < result_.mismatch->expected.block) {
        result_.mismatch = mismatch;
      }
      stop();  // what is under way may still find an earlier one
      return;
    }
    result_.compared_bytes += unit;
    ++stamp.block;
  }
}

void LunexJob::finish(TimePoint now) {
  end_timer_.stop();
  stopping_ = true;
  result_.elapsed = now - began_;
  if (options_.flush_at_end && result_.errors() == 0) {
    flush_ = Flush::running;
    BlockRequest& flush = slots_.front().request;
    flush.operation = BlockOperation::flush;
    flush.sector = 0;
    flush.sector_count = 0;
    slots_.front().submitted = now;
    device_.submit(flush);
  }
}

void LunexJob::note_error(const Slot& slot, IoStatus status, TimePoint now) {
  const BlockRequest& request = slot.request;
  if (status == IoStatus::aborted) {  // the disk was closed
    ++result_.unanswered;
    result_.longest_unanswered = std::max(result_.longest_unanswered, now - slot.submitted);
    return;
  }
  ++result_.failed;
  if (!result_.first_error.empty()) {
    return;
  }
  result_.first_error =
      request.operation == BlockOperation::flush
          ? fmt::format("flush: {}", to_string(status))
          : fmt::format("{} of {} bytes at byte {}: {}", to_string(request.operation),
                        request.length_bytes(), request.sector * kSectorBytes, to_string(status));
}

std::uint64_t LunexJob::random() {
  std::uint64_t value = (random_state_ += 0x9e3779b97f4a7c15);
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

}  // namespace iscsi_blkback
