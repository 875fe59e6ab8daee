// One disk's node in xenstore, without the handshake around it: what is read from it, and when it
// is written.
#include "blkback/guest/xenbus_node.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>

#include "tests/support/mem_xen.h"
#include "tests/support/mem_xenstore.h"

namespace iscsi_blkback {
namespace {

class XenbusNodeTest : public testing::Test {
 protected:
  XenbusNodeTest() {
    put(kBackend + "/params", "aio:iscsi:disk");
    put(kBackend + "/frontend", kFrontend);
    put(kBackend + "/dev", "xvda");
    put(kBackend + "/mode", "w");
    put(kBackend + "/online", "1");
    put(kBackend + "/state", "1");
    put(kFrontend + "/ring-ref", "8");
    put(kFrontend + "/event-channel", "9");
    put(kFrontend + "/protocol", "x86_64-abi");
  }

  void put(const std::string& path, const std::string& value) {
    ASSERT_TRUE(store->write(path, value));
  }
  [[nodiscard]] std::string at(const std::string& path) {
    return store->read(path).value_or("(none)");
  }
  [[nodiscard]] Result<FrontendRing> ring(std::uint32_t max_order = 2) {
    return node.read_ring(*store, kFrontend, {.max_page_order = max_order, .max_queues = 3});
  }
  [[nodiscard]] std::string refusal() {
    const auto asked = ring();
    return asked ? "(none)" : asked.error().message;
  }
  // Queue n has the ring page 20 + n and the port 30 + n.
  void put_queues(int count) {
    put(kFrontend + "/multi-queue-num-queues", std::to_string(count));
    for (int n = 0; n < count; ++n) {
      put(fmt::format("{}/queue-{}/ring-ref", kFrontend, n), std::to_string(20 + n));
      put(fmt::format("{}/queue-{}/event-channel", kFrontend, n), std::to_string(30 + n));
    }
  }
  [[nodiscard]] static std::map<std::string, std::string> sizes(const Geometry& geometry,
                                                                const DiskDescription& disk = {},
                                                                std::uint32_t sector_size = 512) {
    const XenbusNode::Entries entries = XenbusNode::sizes(geometry, disk, sector_size);
    return {entries.begin(), entries.end()};
  }

  const std::string kBackend = "/local/domain/0/backend/qdisk/5/51712";
  const std::string kFrontend = "/local/domain/5/device/vbd/51712";
  MemXen xen;
  std::unique_ptr<MemXenStore> store = xen.store().connect(0);
  XenbusNode node{{BackendKind::qdisk, 0, 5, 51712}};
};

TEST_F(XenbusNodeTest, DescribesTheDisk) {
  const auto disk = node.read_description(*store);
  ASSERT_TRUE(disk) << disk.error().message;
  EXPECT_EQ(disk->params, "aio:iscsi:disk");
  EXPECT_EQ(disk->frontend_path, kFrontend);
  EXPECT_EQ(disk->virtual_device, "xvda");
  EXPECT_FALSE(disk->read_only || disk->cdrom || disk->removable);
}

// Only what is known to allow writing does.
TEST_F(XenbusNodeTest, ADiskIsWritableWithModeWOnly) {
  for (const auto& [mode, read_only] : std::map<std::string, bool>{
           {"w", false}, {"w!", false}, {"r", true}, {"", true}, {"x", true}, {"ro", true}}) {
    put(kBackend + "/mode", mode);
    EXPECT_EQ(node.read_description(*store)->read_only, read_only) << mode;
  }
  put(kBackend + "/mode", "w");
  put(kBackend + "/device-type", "cdrom");
  EXPECT_TRUE(node.read_description(*store)->read_only);
}

TEST_F(XenbusNodeTest, DiscardsAreForbiddenByAZero) {
  EXPECT_TRUE(node.read_description(*store)->discards);
  put(kBackend + "/discard-enable", "1");
  EXPECT_TRUE(node.read_description(*store)->discards);
  put(kBackend + "/discard-enable", "0");
  EXPECT_FALSE(node.read_description(*store)->discards);
}

TEST_F(XenbusNodeTest, RefusesAFrontendThatIsNotTheGuests) {
  for (const char* path : {"/local/domain/6/device/vbd/51712", "/local/domain/50/device/vbd/51712",
                           "/local/domain/5/device/vif/0", "/vm", ""}) {
    put(kBackend + "/frontend", path);
    const auto disk = node.read_description(*store);
    ASSERT_FALSE(disk) << path;
    EXPECT_EQ(disk.error().code, ErrorCode::invalid_argument);
  }
}

TEST_F(XenbusNodeTest, AFrontendThatDoesNotSayItsAbiHasThe32BitOne) {
  ASSERT_TRUE(ring());
  EXPECT_EQ(ring()->abi, BlkifAbi::x86_64);
  put(kFrontend + "/protocol", "native");
  EXPECT_EQ(ring()->abi, BlkifAbi::native);
  put(kFrontend + "/protocol", "x86_32-abi");
  EXPECT_EQ(ring()->abi, BlkifAbi::x86_32);
  ASSERT_TRUE(store->remove(kFrontend + "/protocol"));
  EXPECT_EQ(ring()->abi, BlkifAbi::x86_32);
  put(kFrontend + "/protocol", "arm-abi");
  EXPECT_FALSE(ring());
}

TEST_F(XenbusNodeTest, ARingHasThePagesThatItsOrderSays) {
  EXPECT_EQ(ring()->queues.at(0).references, std::vector<GrantReference>{8});
  EXPECT_EQ(ring()->queues.at(0).event_channel, 9U);
  put(kFrontend + "/ring-page-order", "0");
  EXPECT_EQ(ring()->queues.at(0).references, std::vector<GrantReference>{8}) << "under either name";
  for (int page = 0; page < 4; ++page) {
    put(kFrontend + "/ring-ref" + std::to_string(page), std::to_string(20 + page));
  }
  EXPECT_EQ(ring()->queues.at(0).references, std::vector<GrantReference>{20});
  put(kFrontend + "/ring-page-order", "2");
  EXPECT_EQ(ring()->queues.at(0).references, (std::vector<GrantReference>{20, 21, 22, 23}));
}

TEST_F(XenbusNodeTest, RefusesARingThatIsNone) {
  put(kFrontend + "/ring-page-order", "3");
  for (int page = 0; page < 8; ++page) {
    put(kFrontend + "/ring-ref" + std::to_string(page), "1");
  }
  EXPECT_FALSE(ring(2)) << "more than was offered";
  EXPECT_TRUE(ring(3));
  put(kFrontend + "/event-channel", "0");
  EXPECT_FALSE(ring(3));
  put(kFrontend + "/event-channel", "4294967296");
  EXPECT_FALSE(ring(3));
}

TEST_F(XenbusNodeTest, EachQueueHasItsRingAndItsPort) {
  put_queues(3);
  const auto asked = ring();
  ASSERT_TRUE(asked) << asked.error().message;
  ASSERT_EQ(asked->queues.size(), 3U);
  EXPECT_EQ(asked->queues[2].references, std::vector<GrantReference>{22});
  EXPECT_EQ(asked->queues[2].event_channel, 32U);
  put(kFrontend + "/ring-page-order", "1");  // one for all queues
  for (int n = 0; n < 3; ++n) {
    for (int page = 0; page < 2; ++page) {
      put(fmt::format("{}/queue-{}/ring-ref{}", kFrontend, n, page),
          std::to_string(40 + 2 * n + page));
    }
  }
  EXPECT_EQ(ring()->queues.at(1).references, (std::vector<GrantReference>{42, 43}));
}

// As in Linux's backend: the keys of one queue are where they are without queues.
TEST_F(XenbusNodeTest, OneQueueHasItsKeysAtTheTop) {
  put(kFrontend + "/multi-queue-num-queues", "1");
  ASSERT_TRUE(ring());
  EXPECT_EQ(ring()->queues.size(), 1U);
  EXPECT_EQ(ring()->queues.at(0).references, std::vector<GrantReference>{8});
}

TEST_F(XenbusNodeTest, RefusesQueuesThatAreNone) {
  put_queues(4);
  EXPECT_EQ(refusal(), "the frontend's multi-queue-num-queues is 4, at most 3 was offered");
  put(kFrontend + "/multi-queue-num-queues", "0");
  EXPECT_EQ(refusal(), "the frontend's multi-queue-num-queues is 0");
  put(kFrontend + "/multi-queue-num-queues", "many");
  EXPECT_EQ(refusal(), "the frontend's multi-queue-num-queues is not a number");
  put_queues(2);
  ASSERT_TRUE(store->remove(kFrontend + "/queue-1/event-channel"));
  EXPECT_EQ(refusal(), "the frontend has not written queue-1/event-channel");
}

TEST_F(XenbusNodeTest, RefusesQueuesThatShareAPageOrAPort) {
  put_queues(3);
  put(kFrontend + "/queue-2/event-channel", "31");
  EXPECT_EQ(refusal(), "the frontend's queues 1 and 2 have the same event-channel");
  put_queues(3);
  put(kFrontend + "/queue-2/ring-ref", "20");
  EXPECT_EQ(refusal(), "the frontend's queues 0 and 2 have the same ring page");
}

TEST_F(XenbusNodeTest, IsWrittenOnlyWhileItsStateIsTheExpectedOne) {
  EXPECT_TRUE(node.write_state(*store, XenbusState::initialising, XenbusState::init_wait));
  EXPECT_EQ(at(kBackend + "/state"), "2");
  const auto late = node.write(*store, XenbusState::initialising, {{"sectors", "1"}});
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, ErrorCode::conflict);
  EXPECT_EQ(at(kBackend + "/sectors"), "(none)");
}

TEST_F(XenbusNodeTest, IsNotBroughtBackToLifeByAnyWrite) {
  ASSERT_TRUE(store->remove(kBackend));
  EXPECT_FALSE(node.write_state(*store, XenbusState::connected, XenbusState::closed));
  EXPECT_TRUE(node.write_hotplug(*store, true, "")) << "and no error";
  EXPECT_TRUE(node.write_hotplug(*store, false, "a sentence"));
  EXPECT_FALSE(store->list(kBackend));
}

TEST_F(XenbusNodeTest, SizesAreInSectorsOf512BytesWhateverTheBlocksAre) {
  Geometry geometry;
  geometry.sector_count = 8000;
  geometry.logical_block_bytes = 4096;
  geometry.physical_block_bytes = 8192;
  const auto entries = sizes(geometry);
  EXPECT_EQ(entries.at("sectors"), "8000");
  EXPECT_EQ(entries.at("sector-size"), "512");
  EXPECT_EQ(entries.at("physical-sector-size"), "8192");
  EXPECT_EQ(entries.at("info"), "0");
  geometry.physical_block_bytes = 0;
  EXPECT_EQ(sizes(geometry).at("physical-sector-size"), "4096");
}

TEST_F(XenbusNodeTest, DiscardsAreOfferedWhereTheLunHasThemAndNobodyForbids) {
  Geometry geometry;
  EXPECT_EQ(sizes(geometry).at("feature-discard"), "0");
  geometry.discard_granularity_bytes = 16384;
  geometry.discard_alignment_bytes = 512;
  const auto entries = sizes(geometry);
  EXPECT_EQ(entries.at("feature-discard"), "1");
  EXPECT_EQ(entries.at("discard-granularity"), "16384");
  EXPECT_EQ(entries.at("discard-alignment"), "512");
  EXPECT_EQ(entries.at("discard-secure"), "0");
  DiskDescription disk;
  disk.discards = false;
  EXPECT_EQ(sizes(geometry, disk).at("feature-discard"), "0");
  disk.discards = disk.read_only = true;
  EXPECT_EQ(sizes(geometry, disk).at("feature-discard"), "0");
  geometry.read_only = true;
  EXPECT_EQ(sizes(geometry).at("feature-discard"), "0");
}

// A frontend would align the disk's end to it, and lose what is behind.
TEST_F(XenbusNodeTest, PhysicalSectorSizeThatDoesNotDivideTheLunIsNotPublished) {
  struct Sizes {
    std::uint64_t sectors;
    std::uint32_t logical;
    std::uint32_t physical;
    const char* published;
  };
  for (const Sizes& of : {
           Sizes{2048, 512, 4096, "4096"},
           Sizes{2049, 512, 4096, "512"},
           Sizes{2047, 512, 1024, "512"},
           Sizes{2046, 512, 1024, "1024"},
           Sizes{7, 512, 4096, "512"},
           Sizes{8, 512, 4096, "4096"},
           Sizes{4, 512, 4096, "512"},
           Sizes{8000, 4096, 4096, "4096"},
           Sizes{8008, 4096, 8192, "4096"},
           Sizes{8000, 4096, 16384, "16384"},
           Sizes{8, 4096, 1 << 20, "4096"},
           Sizes{2048, 512, 0, "512"},
           Sizes{2048, 512, 256, "512"},
           Sizes{2049, 512, 512, "512"},
           Sizes{2052, 2048, 4096, "2048"},
           Sizes{6, 1024, 2048, "1024"},
           Sizes{2048, 512, 1536, "512"},
       }) {
    Geometry geometry;
    geometry.sector_count = of.sectors;
    geometry.logical_block_bytes = of.logical;
    geometry.physical_block_bytes = of.physical;
    EXPECT_EQ(sizes(geometry).at("physical-sector-size"), of.published)
        << of.sectors << " sectors, " << of.logical << ", " << of.physical;
  }
}

// Whoever reads `sectors` in those units would see a disk of an eighth of its size.
TEST_F(XenbusNodeTest, SectorsAreCountedIn512BytesWhateverTheirSizeIs) {
  Geometry geometry;
  geometry.sector_count = 8008;
  geometry.logical_block_bytes = 4096;
  EXPECT_EQ(sizes(geometry).at("sector-size"), "512");
  EXPECT_EQ(sizes(geometry, {}, 4096).at("sector-size"), "4096");
  EXPECT_EQ(sizes(geometry, {}, 4096).at("sectors"), "8008");
  EXPECT_EQ(sizes(geometry, {}, 4096).at("physical-sector-size"), "4096");
}

TEST_F(XenbusNodeTest, InfoSaysReadOnlyForWhicheverReason) {
  Geometry geometry;
  EXPECT_EQ(sizes(geometry).at("info"), "0");
  geometry.read_only = true;
  EXPECT_EQ(sizes(geometry).at("info"), "4");
  geometry.read_only = false;
  DiskDescription disk;
  disk.read_only = true;
  EXPECT_EQ(sizes(geometry, disk).at("info"), "4");
  disk.cdrom = true;
  EXPECT_EQ(sizes(geometry, disk).at("info"), "5");
  disk = {};
  disk.removable = true;
  EXPECT_EQ(sizes(geometry, disk).at("info"), "2");
}

}  // namespace
}  // namespace iscsi_blkback
