// lunex below its command line: words, patterns, and the job that keeps a disk busy, in virtual
// time.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <set>

#include "base/byte_order.h"
#include "base/crc32c.h"
#include "base/json_text.h"
#include "tests/support/faulty_disk.h"
#include "tests/support/hostile_text.h"
#include "tests/support/memory_disk.h"
#include "tests/support/sim_reactor.h"
#include "tests/tools/command.h"
#include "tools/lunex/lunex_disk.h"
#include "tools/lunex/lunex_info.h"
#include "tools/lunex/lunex_initiator.h"
#include "tools/lunex/lunex_job.h"
#include "tools/lunex/lunex_options.h"
#include "tools/lunex/lunex_pattern.h"
#include "tools/lunex/lunex_report.h"

namespace iscsi_blkback {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using testing::HasSubstr;

TEST(LunexSize, TakesFiosWords) {
  EXPECT_EQ(parse_lunex_size("4096").value(), 4096U);
  EXPECT_EQ(parse_lunex_size("4k").value(), 4096U);
  EXPECT_EQ(parse_lunex_size("4K").value(), 4096U);
  EXPECT_EQ(parse_lunex_size("4KiB").value(), 4096U);
  EXPECT_EQ(parse_lunex_size("1m").value(), 1U << 20);
  EXPECT_EQ(parse_lunex_size("3g").value(), std::uint64_t{3} << 30);
  EXPECT_EQ(parse_lunex_size("2TB").value(), std::uint64_t{2} << 40);
  EXPECT_EQ(parse_lunex_size("512b").value(), 512U);
}

TEST(LunexSize, RefusesWhatIsNoSize) {
  for (const char* text : {"", "k", "0", "0k", "-1", "4x", "4kk", "4 k", "4ib", "1.5k",
                           "99999999999999999999", "99999999p", "0x10"}) {
    EXPECT_FALSE(parse_lunex_size(text)) << text;
  }
}

TEST(LunexSize, AnOffsetMayBeZero) {
  EXPECT_EQ(parse_lunex_offset("0"), 0U);
  EXPECT_EQ(parse_lunex_offset("0k"), 0U);
  EXPECT_EQ(parse_lunex_offset("3m"), 3U << 20);
  EXPECT_FALSE(parse_lunex_offset("-1"));
  EXPECT_FALSE(parse_lunex_offset(""));
}

TEST(LunexTime, TakesSecondsAndUnits) {
  EXPECT_EQ(parse_lunex_time("10").value(), std::chrono::seconds(10));
  EXPECT_EQ(parse_lunex_time("0.5").value(), milliseconds(500));
  EXPECT_EQ(parse_lunex_time("250ms").value(), milliseconds(250));
  EXPECT_EQ(parse_lunex_time("2m").value(), std::chrono::minutes(2));
  EXPECT_EQ(parse_lunex_time("1h").value(), std::chrono::hours(1));
  EXPECT_EQ(parse_lunex_time("3s").value(), std::chrono::seconds(3));
}

TEST(LunexTime, RefusesWhatIsNoTime) {
  for (const char* text : {"", "s", "0", "0.0001", "-1", "1.2.3", "5d", "1e3", ".5", "2000h"}) {
    EXPECT_FALSE(parse_lunex_time(text)) << text;
  }
}

TEST(LunexRw, TakesFiosWords) {
  LunexJobOptions options;
  ASSERT_TRUE(parse_lunex_rw("randrw", options));
  EXPECT_TRUE(options.reads && options.writes && options.random);
  ASSERT_TRUE(parse_lunex_rw("write", options));
  EXPECT_TRUE(!options.reads && options.writes && !options.random);
  ASSERT_TRUE(parse_lunex_rw("read", options));
  EXPECT_TRUE(options.reads && !options.writes && !options.random);
  EXPECT_FALSE(parse_lunex_rw("trim", options));
}

TEST(LunexIsid, IsNeverThatOfAGuestsSession) {
  const Isid isid = make_lunex_isid(0xffffffff, 63);
  EXPECT_EQ(isid[0], 0x80);        // type "random"
  EXPECT_GE(isid[4] & 0x80, 0x80)  // the qualifier; Xen's numbers of guests end below 0x7ff0
      << int{isid[4]};
  EXPECT_NE(make_lunex_isid(1, 0), make_lunex_isid(1, 1));
}

class LunexPattern : public testing::Test {
 protected:
  static constexpr PatternStamp kStamp{.run = 0x1122334455667788, .block = 77, .generation = 3};
  std::vector<std::byte> filled(const PatternStamp& stamp) const {
    std::vector<std::byte> block(512);
    fill_pattern(block, stamp);
    return block;
  }
};

TEST_F(LunexPattern, RightBlockIsRight) {
  EXPECT_FALSE(check_pattern(filled(kStamp), kStamp));
}

// Of all words behind the header no two are the same, whichever block, run and generation they are
// of: a sector in another one's place shows, even one without a header of its own.
TEST_F(LunexPattern, NoWordComesTwice) {
  std::set<std::uint64_t> words;
  std::size_t count = 0;
  for (const std::uint64_t run : {kStamp.run, kStamp.run + 1}) {
    for (std::uint64_t block = 77; block < 87; ++block) {
      for (std::uint32_t generation = 1; generation < 11; ++generation) {
        const std::vector<std::byte> pattern = filled({run, block, generation});
        for (std::size_t at = kPatternHeaderBytes; at < pattern.size(); at += 8, ++count) {
          words.insert(load_be64(&pattern[at]));
        }
      }
    }
  }
  EXPECT_EQ(words.size(), count);
}

// What an earlier lunex has written is read by a later one.
TEST_F(LunexPattern, HeaderHasItsFieldsInTheirPlaces) {
  const std::vector<std::byte> block = filled({0x1122334455667788, 0x99aabbccddeeff00, 0x01020304});
  EXPECT_EQ(std::memcmp(block.data(), "LUNEX 01", 8), 0);
  EXPECT_EQ(load_be64(&block[8]), 0x99aabbccddeeff00U) << "block";
  EXPECT_EQ(load_be64(&block[16]), 0x1122334455667788U) << "run";
  EXPECT_EQ(load_be32(&block[24]), 0x01020304U) << "generation";
  std::vector<std::byte> covered = block;
  covered.erase(covered.begin() + 28, covered.begin() + 32);
  EXPECT_EQ(load_be32(&block[28]), crc32c(covered)) << "of all but itself";
}

TEST_F(LunexPattern, EveryChangedByteIsNoticed) {
  const std::vector<std::byte> right = filled(kStamp);
  for (std::size_t at = 0; at < right.size(); ++at) {
    std::vector<std::byte> wrong = right;
    wrong[at] ^= std::byte{0x10};
    EXPECT_TRUE(check_pattern(wrong, kStamp)) << at;
  }
}

TEST_F(LunexPattern, SaysThatANewerWriteIsMissing) {
  const auto mismatch = check_pattern(filled({kStamp.run, kStamp.block, 2}), kStamp);
  ASSERT_TRUE(mismatch);
  EXPECT_EQ(mismatch->expected.generation, 3U);
  EXPECT_EQ(mismatch->found.generation, 2U);
  EXPECT_EQ(mismatch->found_checksum, mismatch->computed_checksum);
  EXPECT_THAT(mismatch->describe(), HasSubstr("block 77: expected generation 3, checksum 0x"));
  EXPECT_THAT(mismatch->describe(), HasSubstr("found generation 2"));
  EXPECT_THAT(mismatch->describe(), HasSubstr("a newer write is missing"));
}

TEST_F(LunexPattern, SaysThatABlockIsTorn) {
  std::vector<std::byte> torn = filled(kStamp);
  const std::vector<std::byte> older = filled({kStamp.run, kStamp.block, 2});
  std::copy(older.begin() + 256, older.end(), torn.begin() + 256);
  EXPECT_THAT(check_pattern(torn, kStamp)->describe(), HasSubstr("torn or damaged"));
}

TEST_F(LunexPattern, SaysThatABlockIsAtTheWrongPlace) {
  const auto mismatch = check_pattern(filled({kStamp.run, 78, 3}), kStamp);
  EXPECT_THAT(mismatch->describe(), HasSubstr("of block 78: it was written or read at the wrong"));
}

TEST_F(LunexPattern, SaysThatABlockIsOfAnotherRun) {
  const auto mismatch = check_pattern(filled({5, kStamp.block, 3}), kStamp);
  EXPECT_THAT(mismatch->describe(), HasSubstr("of another run of lunex"));
}

TEST_F(LunexPattern, SaysThatThereIsNoPattern) {
  EXPECT_THAT(check_pattern(std::vector<std::byte>(512), kStamp)->describe(),
              HasSubstr("found zeroes"));
  EXPECT_THAT(check_pattern(std::vector<std::byte>(512, std::byte{'x'}), kStamp)->describe(),
              HasSubstr("no pattern of lunex"));
}

class LunexJobTest : public testing::Test {
 protected:
  static constexpr std::uint64_t kSectors = 2048;  // 1 MiB
  static constexpr std::uint32_t kBlock = 4096;

  static Geometry geometry() {
    Geometry geometry;
    geometry.sector_count = kSectors;
    return geometry;
  }

  std::unique_ptr<LunexJob> make(const LunexJobOptions& options,
                                 LunexGenerations* verified = nullptr) {
    auto job = LunexJob::create(reactor, disk, options, verified);
    EXPECT_TRUE(job) << job.error().message;
    return std::move(*job);
  }
  std::string refusal(const LunexJobOptions& options, LunexGenerations* verified = nullptr) {
    const auto job = LunexJob::create(reactor, disk, options, verified);
    EXPECT_FALSE(job);
    return job ? std::string() : job.error().message;
  }
  void run(LunexJob& job) {
    job.start();
    ASSERT_TRUE(reactor.run_until([&] { return job.done(); }));
  }

  SimReactor reactor{1};
  MemoryDisk memory{reactor, geometry()};
  FaultyDisk disk{reactor, memory};
  LunexGenerations generations{42};
};

TEST_F(LunexJobTest, GoesOnceThroughEveryBlockWithoutAnyLimit) {
  LunexJobOptions options;
  options.random = false;
  options.depth = 3;
  std::vector<std::uint64_t> sectors;
  disk.set_plan([&](const BlockRequest& request, std::uint64_t) {
    sectors.push_back(request.sector);
    return FaultyDisk::Action{};
  });
  const auto job = make(options);
  run(*job);
  ASSERT_EQ(sectors.size(), kSectors * kSectorBytes / kBlock);
  for (std::size_t i = 0; i < sectors.size(); ++i) {
    EXPECT_EQ(sectors[i], i * kBlock / kSectorBytes);
  }
  EXPECT_EQ(job->result().read.requests, sectors.size());
  EXPECT_EQ(job->result().bytes(), kSectors * kSectorBytes);
  EXPECT_EQ(job->result().errors(), 0U);
}

TEST_F(LunexJobTest, TheLastBlockMayBeShort) {
  LunexJobOptions options;
  options.random = false;
  options.block_bytes = 3 * 512;
  options.size_bytes = 10 * 512;
  const auto job = make(options);
  run(*job);
  EXPECT_EQ(job->result().read.requests, 4U);
  EXPECT_EQ(job->result().bytes(), 10U * 512);
}

TEST_F(LunexJobTest, KeepsTheDepthAndEndsAfterTheRuntime) {
  LunexJobOptions options;
  options.depth = 7;
  options.runtime = milliseconds(10);
  memory.set_delay([] { return microseconds(100); });
  const auto job = make(options);
  job->start();
  reactor.run_for(milliseconds(1));
  EXPECT_EQ(job->in_flight(), 7U);
  ASSERT_TRUE(reactor.run_until([&] { return job->done(); }));
  const LunexJobResult& result = job->result();
  EXPECT_NEAR(static_cast<double>(result.requests()), 700, 8);
  EXPECT_GE(result.elapsed, milliseconds(10));
  EXPECT_LE(result.elapsed, milliseconds(11));
  EXPECT_EQ(result.read.latency.count(), result.requests());
  EXPECT_EQ(result.read.latency.max(), microseconds(100));
}

TEST_F(LunexJobTest, EndsAfterTheNumberOfRequests) {
  LunexJobOptions options;
  options.depth = 16;
  options.requests = 5;
  const auto job = make(options);
  run(*job);
  EXPECT_EQ(job->result().requests(), 5U);
}

TEST_F(LunexJobTest, StaysWithinItsPart) {
  LunexJobOptions options;
  options.offset_bytes = 64 * 1024;
  options.size_bytes = 32 * 1024;
  options.requests = 1000;
  disk.set_plan([&](const BlockRequest& request, std::uint64_t) {
    EXPECT_GE(request.sector, 128U);
    EXPECT_LE(request.sector + request.sector_count, 192U);
    return FaultyDisk::Action{};
  });
  const auto job = make(options);
  run(*job);
  EXPECT_EQ(job->result().requests(), 1000U);
}

TEST_F(LunexJobTest, MixesAsAskedFor) {
  LunexJobOptions options;
  options.writes = true;
  options.read_percent = 70;
  options.requests = 10000;
  const auto job = make(options);
  run(*job);
  EXPECT_NEAR(static_cast<double>(job->result().read.requests), 7000, 200);
  EXPECT_EQ(job->result().requests(), 10000U);
}

TEST_F(LunexJobTest, FlushesAtTheEnd) {
  LunexJobOptions options;
  options.writes = true;
  options.reads = false;
  options.requests = 10;
  options.depth = 4;
  options.flush_at_end = true;
  std::uint64_t flushed_at = 0;
  disk.set_plan([&](const BlockRequest& request, std::uint64_t number) {
    if (request.operation == BlockOperation::flush) {
      flushed_at = number;
    }
    return FaultyDisk::Action{};
  });
  const auto job = make(options);
  run(*job);
  EXPECT_EQ(flushed_at, 10U);
  EXPECT_EQ(job->result().requests(), 10U);
}

// With no path and no_path_retry fail, each request fails at once.
TEST_F(LunexJobTest, EndsWithTheFirstRequestThatFails) {
  for (const std::uint32_t depth : {1U, 8U}) {
    for (const bool writes : {false, true}) {
      LunexJobOptions options;
      options.random = false;
      options.reads = !writes;
      options.writes = writes;
      options.depth = depth;
      options.runtime = std::chrono::hours(1);
      options.flush_at_end = writes;
      memory.set_delay([] { return microseconds(100); });
      std::uint64_t asked = 0;
      disk.set_plan([&](const BlockRequest& request, std::uint64_t) {
        EXPECT_NE(request.operation, BlockOperation::flush) << "which would wait for a path";
        FaultyDisk::Action action;
        if (++asked > 30) {
          action.kind = FaultyDisk::Action::Kind::fail;
          action.status = asked == 31 ? IoStatus::medium_error : IoStatus::target_error;
        }
        return action;
      });
      const auto job = make(options);
      run(*job);
      const LunexJobResult& result = job->result();
      EXPECT_GE(result.failed, 1U);
      EXPECT_LE(result.failed, depth);
      EXPECT_EQ(result.requests(), 30U);
      EXPECT_EQ(result.errors(), result.failed);
      EXPECT_EQ(result.unanswered, 0U);
      EXPECT_LT(result.elapsed, milliseconds(10));
      EXPECT_THAT(result.first_error, HasSubstr(writes ? "write of 4096 bytes at byte 122880: "
                                                       : "read of 4096 bytes at byte 122880: "));
      EXPECT_THAT(result.first_error, HasSubstr(to_string(IoStatus::medium_error)));
    }
  }
}

TEST_F(LunexJobTest, CountsWhatIsNeverAnsweredApartAndForHowLong) {
  LunexJobOptions options;
  options.depth = 4;
  options.runtime = milliseconds(5);
  disk.set_plan([](const BlockRequest&, std::uint64_t number) {
    return FaultyDisk::Action{
        number < 100 ? FaultyDisk::Action::Kind::pass : FaultyDisk::Action::Kind::hold,
        IoStatus::ok};
  });
  memory.set_delay([] { return microseconds(10); });
  const auto job = make(options);
  job->start();
  reactor.run_for(milliseconds(20));
  EXPECT_TRUE(job->ending());
  EXPECT_FALSE(job->done());
  disk.fail_held(IoStatus::aborted);
  reactor.run_until_idle();
  EXPECT_TRUE(job->done());
  const LunexJobResult& result = job->result();
  EXPECT_EQ(result.unanswered, 4U);
  EXPECT_EQ(result.failed, 0U);
  EXPECT_EQ(result.errors(), 4U);
  EXPECT_EQ(result.first_error, "");
  EXPECT_GT(result.longest_unanswered, milliseconds(19));
  EXPECT_LT(result.read.latency.max(), milliseconds(1));
  EXPECT_EQ(result.read.latency.count(), 100U);
}

TEST_F(LunexJobTest, AFlushThatIsNeverAnsweredIsCounted) {
  LunexJobOptions options;
  options.reads = false;
  options.writes = true;
  options.requests = 3;
  options.flush_at_end = true;
  disk.set_plan([](const BlockRequest& request, std::uint64_t) {
    return FaultyDisk::Action{request.operation == BlockOperation::flush
                                  ? FaultyDisk::Action::Kind::hold
                                  : FaultyDisk::Action::Kind::pass,
                              IoStatus::ok};
  });
  const auto job = make(options);
  job->start();
  reactor.run_for(milliseconds(20));
  EXPECT_FALSE(job->done());
  EXPECT_FALSE(job->ending()) << "a flush is given the time that it takes";
  disk.fail_held(IoStatus::aborted);
  reactor.run_until_idle();
  EXPECT_TRUE(job->done());
  EXPECT_TRUE(job->ending());
  EXPECT_EQ(job->result().unanswered, 1U);
  EXPECT_EQ(job->result().requests(), 3U);
}

TEST_F(LunexJobTest, CountsTheBytesThatItHasCompared) {
  LunexJobOptions write;
  write.random = false;
  write.reads = false;
  write.writes = true;
  write.size_bytes = 64 * 1024;
  const auto writer = make(write, &generations);
  run(*writer);
  EXPECT_EQ(writer->result().compared_bytes, 0U);
  LunexJobOptions read = write;
  read.reads = true;
  read.writes = false;
  const auto reader = make(read, &generations);
  run(*reader);
  EXPECT_EQ(reader->result().compared_bytes, 64U * 1024);
  LunexGenerations others(43);
  const auto stranger = make(read, &others);
  run(*stranger);
  EXPECT_EQ(stranger->result().compared_bytes, 0U) << "nothing that it has written";
  memory.contents()[33 * kSectorBytes + 100] ^= std::byte{1};
  const auto again = make(read, &generations);
  run(*again);
  EXPECT_EQ(again->result().compared_bytes, 33U * kSectorBytes);
}

TEST_F(LunexJobTest, VerifiesWhatItHasWritten) {
  LunexJobOptions options;
  options.writes = true;
  options.depth = 32;
  options.requests = 5000;
  memory.set_delay([this] { return microseconds(reactor.schedule_random().below(50)); });
  const auto job = make(options, &generations);
  run(*job);
  EXPECT_FALSE(job->result().mismatch) << job->result().mismatch->describe();
  EXPECT_EQ(job->result().requests(), 5000U);
}

TEST_F(LunexJobTest, StampsCountTheLunsBlocks) {
  Geometry large = geometry();
  large.logical_block_bytes = 4096;
  memory.set_geometry(large);
  LunexJobOptions options;
  options.reads = false;
  options.writes = true;
  options.random = false;
  options.block_bytes = 3 * 4096;
  const auto writer = make(options, &generations);
  run(*writer);
  for (std::uint64_t block = 0; block < 256; ++block) {
    EXPECT_EQ(load_be64(&memory.contents()[block * 4096 + 8]), block);
  }
  options.reads = true;
  options.writes = false;
  const auto reader = make(options, &generations);
  run(*reader);
  EXPECT_FALSE(reader->result().mismatch);
}

TEST_F(LunexJobTest, FindsTheLowestOfSeveralWrongBlocks) {
  LunexJobOptions write;
  write.random = false;
  write.reads = false;
  write.writes = true;
  const auto writer = make(write, &generations);
  run(*writer);
  for (const std::size_t sector : {100U, 57U, 90U}) {
    memory.contents()[sector * kSectorBytes + 300] ^= std::byte{1};
  }
  LunexJobOptions read;
  read.random = false;
  read.depth = 64;  // all of them are under way when the first is found
  const auto reader = make(read, &generations);
  run(*reader);
  ASSERT_TRUE(reader->result().mismatch);
  EXPECT_EQ(reader->result().mismatch->expected.block, 57U);
  EXPECT_EQ(reader->result().mismatch->expected.generation, 1U);
  EXPECT_NE(reader->result().mismatch->found_checksum,
            reader->result().mismatch->computed_checksum);
}

TEST_F(LunexJobTest, FindsALostWrite) {
  LunexJobOptions options;
  options.random = false;
  options.reads = false;
  options.writes = true;
  const auto first = make(options, &generations);
  run(*first);
  const std::vector<std::byte> before = memory.contents();
  const auto second = make(options, &generations);
  run(*second);
  // Of the second generation the disk has forgotten one block of 512 bytes.
  std::copy_n(before.begin() + 33 * 512, 512, memory.contents().begin() + 33 * 512);
  LunexJobOptions read;
  read.random = false;
  const auto reader = make(read, &generations);
  run(*reader);
  ASSERT_TRUE(reader->result().mismatch);
  EXPECT_EQ(reader->result().mismatch->expected.block, 33U);
  EXPECT_EQ(reader->result().mismatch->expected.generation, 2U);
  EXPECT_EQ(reader->result().mismatch->found.generation, 1U);
}

TEST_F(LunexJobTest, DoesNotJudgeWhatItHasNotWritten) {
  LunexJobOptions read;
  const auto reader = make(read, &generations);
  run(*reader);
  EXPECT_FALSE(reader->result().mismatch);
}

TEST_F(LunexJobTest, DoesNotJudgeABlockWhoseWriteFailed) {
  LunexJobOptions write;
  write.random = false;
  write.reads = false;
  write.writes = true;
  disk.set_plan([](const BlockRequest&, std::uint64_t number) {
    FaultyDisk::Action action;
    if (number == 7) {
      action.kind = FaultyDisk::Action::Kind::fail;
    }
    return action;
  });
  const auto writer = make(write, &generations);
  run(*writer);
  disk.set_plan({});
  LunexJobOptions read;
  read.random = false;
  const auto reader = make(read, &generations);
  run(*reader);
  EXPECT_FALSE(reader->result().mismatch);
}

TEST_F(LunexJobTest, RefusesBlocksThatAreNoMultipleOfTheLuns) {
  Geometry large = geometry();
  large.logical_block_bytes = 4096;
  memory.set_geometry(large);
  LunexJobOptions options;
  options.block_bytes = 512;
  EXPECT_THAT(refusal(options), HasSubstr("multiples of the LUN's logical blocks of 4096 bytes"));
}

TEST_F(LunexJobTest, RefusesAPartBeyondTheEnd) {
  LunexJobOptions options;
  options.offset_bytes = kSectors * kSectorBytes;
  EXPECT_THAT(refusal(options), HasSubstr("beyond the end of the LUN, which has 1048576 bytes"));
  options.offset_bytes = 4096;
  options.size_bytes = kSectors * kSectorBytes;
  EXPECT_THAT(refusal(options), HasSubstr("beyond the end"));
}

TEST_F(LunexJobTest, RefusesAPartSmallerThanABlock) {
  LunexJobOptions options;
  options.size_bytes = 512;
  EXPECT_THAT(refusal(options), HasSubstr("less than a block"));
}

TEST_F(LunexJobTest, RefusesMoreThanTheLunTakesAtOnce) {
  Geometry small = geometry();
  small.max_transfer_sectors = 8;
  memory.set_geometry(small);
  LunexJobOptions options;
  options.block_bytes = 8192;
  EXPECT_THAT(refusal(options), HasSubstr("at most 4096 bytes with one command"));
}

TEST_F(LunexJobTest, RefusesToWriteToAReadOnlyLun) {
  Geometry fixed = geometry();
  fixed.read_only = true;
  memory.set_geometry(fixed);
  LunexJobOptions options;
  options.writes = true;
  EXPECT_THAT(refusal(options), HasSubstr("write-protected"));
}

TEST_F(LunexJobTest, RefusesTooMuchMemory) {
  LunexJobOptions options;
  options.block_bytes = 1 << 20;
  options.depth = 4096;
  EXPECT_THAT(refusal(options), HasSubstr("1 GiB"));
}

TEST_F(LunexJobTest, RefusesToVerifyMoreRequestsThanBlocks) {
  LunexJobOptions options;
  options.size_bytes = 8 * 4096;
  options.depth = 9;
  EXPECT_THAT(refusal(options, &generations), HasSubstr("only 8 blocks for 9 requests"));
}

// What nobody has chosen is no reason to refuse a small LUN.
TEST_F(LunexJobTest, LessensWhatNobodyHasChosen) {
  struct Case {
    std::uint64_t size_bytes;
    std::uint32_t most_sectors;  // of a command
    std::uint64_t requests;
  };
  for (const Case& one :
       {Case{512, 0, 1}, Case{4096, 0, 1}, Case{64 << 10, 0, 1}, Case{(64 << 10) + 512, 0, 2},
        Case{1 << 20, 0, 16}, Case{1 << 20, 64, 32}, Case{1 << 20, 1, 2048}}) {
    Geometry small = geometry();
    small.max_transfer_sectors = one.most_sectors;
    MemoryDisk lun{reactor, small};
    LunexGenerations written{7};
    for (const bool write : {true, false}) {
      LunexJobOptions options;
      options.random = false;
      options.reads = !write;
      options.writes = write;
      options.block_bytes = 64 << 10;
      options.depth = 16;
      options.lessen_block_bytes = true;
      options.lessen_depth = true;
      options.size_bytes = one.size_bytes;
      auto job = LunexJob::create(reactor, lun, options, &written);
      ASSERT_TRUE(job) << job.error().message;
      run(**job);
      EXPECT_EQ((*job)->result().requests(), one.requests) << one.size_bytes;
      EXPECT_EQ((*job)->result().bytes(), one.size_bytes);
      EXPECT_LE((*job)->options().block_bytes, one.size_bytes) << "what is told as its block size";
      EXPECT_LE((*job)->options().depth, one.requests);
      EXPECT_EQ((*job)->result().compared_bytes, write ? 0 : one.size_bytes);
    }
  }
}

// Every way in which a job can end, against what the disk has counted.
TEST_F(LunexJobTest, EachFigureIsWhatTheDiskHasCounted) {
  enum class End : std::uint8_t { time, number, size, failure, no_space, no_path, silence, stop };
  memory.set_delay([this] { return microseconds(50 + reactor.schedule_random().below(100)); });
  for (const End end : {End::time, End::number, End::size, End::failure, End::no_space,
                        End::no_path, End::silence, End::stop}) {
    for (const char* rw : {"read", "write", "randread", "randwrite", "rw", "randrw"}) {
      for (const std::uint32_t depth : {1U, 8U}) {
        for (const bool verified : {false, true}) {
          SCOPED_TRACE(testing::Message()
                       << rw << ", depth " << depth << ", end " << static_cast<int>(end)
                       << (verified ? ", verified" : ""));
          LunexJobOptions options;
          ASSERT_TRUE(parse_lunex_rw(rw, options));
          options.depth = depth;
          options.size_bytes = 300 * 1024;
          options.block_bytes = 8192;  // the last one is short
          if (end == End::time) {
            options.runtime = milliseconds(7);
          } else if (end == End::number) {
            options.requests = 77;
          } else if (end != End::size) {
            options.requests = 100000;
          }
          std::uint64_t counts[2] = {0, 0};
          std::uint64_t bytes[2] = {0, 0};
          std::uint64_t asked = 0;
          std::uint64_t failed = 0;
          std::uint64_t silent = 0;
          disk.set_plan([&](const BlockRequest& request, std::uint64_t) {
            FaultyDisk::Action action;
            const bool troubled = ++asked > 40 && (end == End::failure || end == End::no_space ||
                                                   end == End::no_path || end == End::silence);
            if (!troubled) {
              const std::size_t at = request.operation == BlockOperation::write ? 1 : 0;
              ++counts[at];
              bytes[at] += request.length_bytes();
            } else if (end == End::silence) {
              ++silent;
              action.kind = FaultyDisk::Action::Kind::hold;
            } else {
              ++failed;
              action.kind = FaultyDisk::Action::Kind::fail;
              action.status = end == End::failure    ? IoStatus::medium_error
                              : end == End::no_space ? IoStatus::no_space
                                                     : IoStatus::no_path;
            }
            return action;
          });
          LunexGenerations written(9);
          const auto job = make(options, verified ? &written : nullptr);
          const TimePoint began = reactor.now();
          job->start();
          if (end == End::stop || end == End::silence) {
            reactor.run_for(milliseconds(20));
            job->stop();
            reactor.run_for(milliseconds(5));
            disk.fail_held(IoStatus::aborted);
          }
          ASSERT_TRUE(reactor.run_until([&] { return job->done(); }, std::chrono::seconds(60)));
          LunexMeasure measure;
          measure.result = job->result();
          measure.client_cpu = microseconds(1000);
          measure.system_calls = 500;
          measure.interrupted = end == End::stop;
          const nlohmann::json json = run_json({rw, 8192, depth, verified}, measure);
          const std::string text = run_text({rw, 8192, depth, verified}, measure).text();
          const double elapsed = json["elapsed_s"].get<double>();
          EXPECT_LE(elapsed, std::chrono::duration<double>(reactor.now() - began).count() + 1e-9);
          const char* const names[2] = {"read", "write"};
          for (std::size_t at = 0; at < 2; ++at) {
            const nlohmann::json& of = json[names[at]];
            EXPECT_EQ(of["requests"], counts[at]);
            EXPECT_EQ(of["bytes"], bytes[at]);
            EXPECT_NEAR(of["iops"].get<double>() * elapsed, static_cast<double>(counts[at]), 1e-6);
            const LunexJobResult::Direction& direction =
                at == 0 ? measure.result.read : measure.result.write;
            EXPECT_EQ(direction.latency.count(), counts[at]) << "only what was answered";
            const nlohmann::json& latency = of["latency_ns"];
            std::int64_t last = latency["min"].get<std::int64_t>();
            EXPECT_EQ(last == 0, counts[at] == 0);
            for (const char* key : {"p50", "p99", "p99_9", "max"}) {
              EXPECT_GE(latency[key].get<std::int64_t>(), last) << key;
              last = latency[key].get<std::int64_t>();
            }
            EXPECT_LE(last, 151000) << "what was given up is in none";
            EXPECT_EQ(text.find(std::string(names[at]) + ":") != std::string::npos,
                      counts[at] != 0);
          }
          const std::uint64_t all = counts[0] + counts[1];
          EXPECT_EQ(json["requests"], all);
          EXPECT_EQ(json["bytes"], bytes[0] + bytes[1]);
          EXPECT_NEAR(json["iops"].get<double>() * elapsed, static_cast<double>(all), 1e-6);
          EXPECT_NEAR(json["bandwidth_bytes_per_s"].get<double>() * elapsed,
                      static_cast<double>(bytes[0] + bytes[1]), 1e-2);
          EXPECT_NEAR(json["client_cpu_us_per_io"].get<double>() * static_cast<double>(all), 1000,
                      1e-6);
          EXPECT_NEAR(json["syscalls_per_io"].get<double>() * static_cast<double>(all), 500, 1e-6);
          EXPECT_EQ(json["failed"], failed);
          EXPECT_EQ(json["unanswered"], silent);
          EXPECT_EQ(json["unanswered_longest_ns"].get<std::int64_t>() > 20000000, silent != 0);
          EXPECT_EQ(json["errors"], failed + silent);
          EXPECT_EQ(json["first_error"] == "", failed == 0);
          EXPECT_THAT(text, HasSubstr(fmt::format("errors: {}\n", failed + silent)));
          EXPECT_EQ(text.find("never answered") != std::string::npos, silent != 0);
          EXPECT_EQ(text.find("interrupted") != std::string::npos, end == End::stop);
          EXPECT_TRUE(json["mismatch"].is_null());
          if (end == End::number || end == End::size) {
            EXPECT_EQ(all, end == End::number ? 77U : 38U);
          }
        }
      }
    }
  }
}

// `errors` of both commands is made of the same figures.
TEST(LunexReport, AVerdictTellsOfErrorsWhatARunTells) {
  LunexVerdict verdict;
  verdict.last.failed = 2;
  verdict.last.unanswered = 3;
  verdict.last.longest_unanswered = milliseconds(2500);
  verdict.last.first_error = "flush: target error";
  verdict.last.mismatch.emplace();
  LunexMeasure measure;
  measure.result = verdict.last;
  const nlohmann::json of_run = run_json({"read", 4096, 1}, measure);
  const nlohmann::json of_verdict = verdict_json(verdict);
  for (const char* key :
       {"errors", "failed", "unanswered", "unanswered_longest_ns", "first_error", "mismatch"}) {
    ASSERT_TRUE(of_verdict.contains(key)) << key;
    EXPECT_EQ(of_verdict[key], of_run[key]) << key;
  }
}

TEST(LunexReport, JsonHasTheKeysOfItsManPage) {
  LunexMeasure measure;
  measure.result.elapsed = std::chrono::seconds(2);
  measure.result.read.requests = 1000;
  measure.result.read.bytes = 4096000;
  for (int i = 1; i <= 1000; ++i) {
    measure.result.read.latency.record(microseconds(i));
  }
  measure.client_cpu = microseconds(2000);
  measure.system_calls = 100;
  const nlohmann::json json = run_json({"randread", 4096, 32}, measure);
  EXPECT_EQ(json["iops"], 500.0);
  EXPECT_EQ(json["bandwidth_bytes_per_s"], 2048000.0);
  EXPECT_EQ(json["client_cpu_us_per_io"], 2.0);
  EXPECT_EQ(json["syscalls_per_io"], 0.1);
  EXPECT_EQ(json["errors"], 0);
  EXPECT_NEAR(json["latency_ns"]["p50"].get<double>(), 500e3, 20e3);
  EXPECT_NEAR(json["latency_ns"]["p99"].get<double>(), 990e3, 35e3);
  EXPECT_NEAR(json["latency_ns"]["p99_9"].get<double>(), 999e3, 35e3);
  EXPECT_EQ(json["latency_ns"]["max"], 1000000);
}

PathSnapshot path_in(PathState state) {
  PathSnapshot path;
  path.state = state;
  return path;
}

// "2 of 2 paths" is what holds at the end, and was so all the time.
TEST(LunexReport, PathsAreThoseOfTheEndWithTheFewestAtAnyTime) {
  struct Paths {
    std::vector<PathState> at_end;
    std::size_t fewest;
    const char* text;
  };
  using enum PathState;
  for (const Paths& paths : {
           Paths{{up, up}, 2, " 2 of 2 paths to "},
           Paths{{up, up}, 1, " 2 of 2 paths at the end, 1 at the least to "},
           Paths{{up, up}, 0, " 2 of 2 paths at the end, 0 at the least to "},
           Paths{{up, down}, 1, " 1 of 2 paths to "},
           Paths{{down, up}, 0, " 1 of 2 paths at the end, 0 at the least to "},
           Paths{{down, down}, 0, " 0 of 2 paths to "},
           Paths{{up, quarantined, ghost, pending}, 1, " 1 of 4 paths to "},
       }) {
    LunexMeasure measure;
    for (const PathState state : paths.at_end) {
      measure.disk.paths.push_back(path_in(state));
    }
    measure.fewest_paths_up = paths.fewest;
    EXPECT_THAT(run_text({"read", 4096, 1}, measure).text(), HasSubstr(paths.text));
    const nlohmann::json json = run_json({"read", 4096, 1}, measure);
    EXPECT_EQ(json["paths"], paths.at_end.size());
    EXPECT_EQ(json["paths_up"], measure.disk.paths_up());
    EXPECT_EQ(json["paths_up_least"], paths.fewest);
  }
}

TEST(LunexReport, ErrorsAreToldApart) {
  LunexMeasure measure;
  measure.result.failed = 2;
  measure.result.unanswered = 3;
  measure.result.longest_unanswered = milliseconds(2500);
  measure.result.mismatch.emplace();
  const nlohmann::json json = run_json({"read", 4096, 1}, measure);
  EXPECT_EQ(json["errors"], 6);
  EXPECT_EQ(json["failed"], 2);
  EXPECT_EQ(json["unanswered"], 3);
  EXPECT_EQ(json["unanswered_longest_ns"], 2500000000);
  EXPECT_TRUE(json["compared_bytes"].is_null());
  const std::string text = run_text({"read", 4096, 1, true}, measure).text();
  EXPECT_THAT(text, HasSubstr("errors: 6\n"));
  EXPECT_THAT(text, HasSubstr("never answered: 3, after up to 2.50 s"));
  EXPECT_THAT(text, HasSubstr("compared: 0 bytes"));
}

// What `lunex verify` says, in each way that it can end.
TEST(LunexReport, TheVerdictIsAboutTheLunOnlyWhenBlocksWereCompared) {
  LunexVerdict right;
  right.passes = right.passes_done = 2;
  right.written_bytes = right.compared_bytes = 1 << 20;
  EXPECT_EQ(verdict_text(right), "every block is right");
  EXPECT_EQ(verdict_json(right)["verified"], true);

  std::vector<std::pair<const char*, LunexVerdict>> others;
  const auto add = [&](const char* text, const std::function<void(LunexVerdict&)>& change) {
    others.emplace_back(text, right);
    change(others.back().second);
  };
  add("the LUN is not right", [](LunexVerdict& of) { of.last.mismatch.emplace(); });
  add("the LUN is not right", [](LunexVerdict& of) {
    of.last.mismatch.emplace();
    of.last.failed = 1;
    of.passes_done = 1;
  });
  add("not verified, as requests have failed", [](LunexVerdict& of) {
    of.last.failed = 1;
    of.passes_done = 1;
  });
  add("not verified, as requests have failed", [](LunexVerdict& of) { of.last.unanswered = 1; });
  add("not verified, as requests have failed", [](LunexVerdict& of) {
    of.last.unanswered = 1;
    of.interrupted = true;
  });
  add("interrupted, and not verified: 1 of 2 passes", [](LunexVerdict& of) {
    of.interrupted = true;
    of.passes_done = 1;
  });
  add("interrupted, and not verified: 0 of 2 passes", [](LunexVerdict& of) {
    of.interrupted = true;
    of.passes_done = 0;
    of.compared_bytes = 0;
  });
  add("not verified", [](LunexVerdict& of) { of.compared_bytes -= 512; });
  add("not verified", [](LunexVerdict& of) { of.passes_done = 0; });
  for (const auto& [text, verdict] : others) {
    EXPECT_THAT(verdict_text(verdict), testing::StartsWith(text));
    EXPECT_EQ(verdict_json(verdict)["verified"], false) << text;
  }
}

class LunexName : public testing::Test {
 protected:
  LunexConfiguration configured(const std::string& text,
                                const std::optional<std::string>& given = std::nullopt) {
    const auto result = configure_lunex(files(text), given);
    EXPECT_TRUE(result) << (result ? "" : result.error().message);
    return result.value_or(LunexConfiguration{});
  }
  ConfigurationFiles files(const std::string& text) {
    std::ofstream(folder / "c.toml") << text;
    return {folder / "c.toml", true, folder / "initiatorname.iscsi"};
  }
  static std::set<std::string> names_in(const Configuration& configuration) {
    std::set<std::string> names = {configuration.initiator_name,
                                   configuration.session.initiator_name};
    for (const auto& [name, target] : configuration.targets) {
      names.insert(target.session.initiator_name);
    }
    for (const auto& [name, lun] : configuration.luns) {
      names.insert(lun.session.initiator_name);
    }
    return names;
  }

  static constexpr const char* kSections =
      "[targets.'iqn.a:t']\nlogin_timeout = 3\n[luns.x]\ntarget = 'iqn.a:t'\nlun = 1\n"
      "[luns.y]\ntarget = 'iqn.a:u'\nlun = 1\n";
  TemporaryFolder folder;
};

TEST_F(LunexName, IsOneInEverySectionWhereverItComesFrom) {
  using Names = std::set<std::string>;
  const std::string of_file = "initiator_name = 'iqn.a:file'\n";
  EXPECT_EQ(names_in(configured(of_file + kSections).configuration), Names{"iqn.a:file"});
  EXPECT_EQ(names_in(configured(of_file + kSections, "iqn.a:given").configuration),
            Names{"iqn.a:given"});
  EXPECT_EQ(names_in(configured(kSections, "iqn.a:given").configuration), Names{"iqn.a:given"});
  std::ofstream(folder / "initiatorname.iscsi") << "InitiatorName=iqn.a:open-iscsi\n";
  EXPECT_EQ(names_in(configured(kSections).configuration), Names{"iqn.a:open-iscsi"});
  EXPECT_EQ(configured(kSections).remark, "");
}

TEST_F(LunexName, IsMadeUpWhereTheHostHasNone) {
  const std::vector<std::string> contents = {"", "# nothing\n", "GenerateName=yes\n"};
  for (std::size_t number = 0; number <= contents.size(); ++number) {
    if (number > 0) {
      std::ofstream(folder / "initiatorname.iscsi") << contents[number - 1];
    }
    const LunexConfiguration made = configured(kSections);
    const std::string& name = made.configuration.initiator_name;
    EXPECT_THAT(name, testing::MatchesRegex("iqn.2016-04.com.open-iscsi:[0-9a-f]{12}"));
    EXPECT_EQ(names_in(made.configuration).size(), 1U);
    EXPECT_THAT(made.remark, testing::AllOf(HasSubstr(name), HasSubstr("-i")));
    EXPECT_NE(configured(kSections).configuration.initiator_name, name);
  }
}

TEST_F(LunexName, ThatIsNoneIsRefusedAndTheSentenceNamesTheOption) {
  std::ofstream(folder / "initiatorname.iscsi") << "InitiatorName=host1\n";
  const auto wrong = configure_lunex(files(""), std::nullopt);
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().code, ErrorCode::invalid_argument);
  EXPECT_THAT(wrong.error().message, HasSubstr("-i"));
  for (const char* none : {"host1", ""}) {
    EXPECT_THAT(configure_lunex(files(""), none).error().message, HasSubstr("--initiator-name"));
  }
  EXPECT_EQ(configured("", "iqn.a:given").configuration.initiator_name, "iqn.a:given");
}

// Whatever a target calls itself, its LUN and its portals.
TEST(LunexReport, HostileTextIsPrintable) {
  for (const HostileText& hostile : hostile_texts()) {
    LunexInfo info;
    LogicalUnitIdentity& lun = info.identity;
    for (std::string* field : {&info.target_name, &info.portal, &info.login.target_alias,
                               &lun.vendor, &lun.product, &lun.revision, &lun.serial, &lun.wwid}) {
      *field = hostile.text;
    }
    EXPECT_TRUE(are_harmless_lines(info_text(info).text())) << hostile.name;
    const std::string document = json_text(info_json(info), 2);
    EXPECT_TRUE(are_harmless_lines(document + '\n')) << hostile.name;
    EXPECT_EQ(nlohmann::json::parse(document)["login"]["TargetAlias"],
              printable_text(hostile.text, kMaxJsonStringBytes));
    LunexMeasure measure;
    measure.disk.vendor = measure.disk.product = hostile.text;
    measure.result.first_error = hostile.text;
    const LunexRunWords words{hostile.text, 4096, 1};
    EXPECT_TRUE(are_harmless_lines(run_text(words, measure).text())) << hostile.name;
    EXPECT_TRUE(is_harmless(json_text(run_json(words, measure)))) << hostile.name;
  }
}

TEST(LunexReport, AJobWithoutAnyAnswerHasRatesOfZero) {
  const nlohmann::json json = run_json({"read", 4096, 1}, LunexMeasure{});
  EXPECT_EQ(json["iops"], 0.0);
  EXPECT_EQ(json["client_cpu_us_per_io"], 0.0);
}

}  // namespace
}  // namespace iscsi_blkback
