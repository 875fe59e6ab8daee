// The built-in table of arrays, and the [[device]] sections that add to it.
#include "tools/config/array_table.h"

#include <utility>
#include <vector>

#include "tests/tools/config/config_text.h"

namespace iscsi_blkback {
namespace {

using std::chrono::seconds;

TEST(Config, DeviceSectionsComeAfterTheBuiltInTable) {
  const Configuration configuration = accepted(
      "[[device]]\nvendor = 'IET'\npath_grouping_policy = 'failover'\n"
      "[[device]]\nproduct = 'MD3*'\nrevision = '07*'\nprio = 'rdac'\nrr_min_io = 3\n");
  const ArrayTable& table = *configuration.multipath.arrays;
  ASSERT_EQ(table.size(), built_in_arrays().size() + 2);
  EXPECT_EQ(table.back().product, "MD3*");
  EXPECT_EQ(table.back().revision, "07*");
  EXPECT_EQ(table.back().policies.rr_min_io, 3U);
  EXPECT_FALSE(table.back().prio_without_alua) << "the operator means it";
  LogicalUnitIdentity identity;
  identity.vendor = "IET";
  EXPECT_EQ(decide_policies({}, &table, &identity).path_grouping_policy,
            PathGroupingPolicy::failover);
}

// Values of the built-in rows where they matter most.
TEST(ArrayTable, KnowsTheArraysOfTheTable) {
  const auto policies = [](std::string vendor, std::string product, std::uint8_t tpgs = 0) {
    LogicalUnitIdentity identity;
    identity.vendor = std::move(vendor);
    identity.product = std::move(product);
    identity.tpgs = tpgs;
    return decide_policies({}, &built_in_arrays(), &identity);
  };
  for (const char* product : {"MD3000i", "MD32xxi", "MD36xxi"}) {
    const PathPolicies rdac = policies("DELL", product);
    EXPECT_EQ(rdac.prio.kind, PrioritizerKind::rdac) << product;
    EXPECT_EQ(rdac.pg_init_retries, 50U);
    EXPECT_EQ(rdac.failback.kind, Failback::Kind::immediate);
  }
  EXPECT_EQ(policies("DELL", "MD32xxi", 1).prio.kind, PrioritizerKind::alua)
      << "ALUA, where the LUN reports it";
  EXPECT_EQ(policies("IBM", "1815      FAStT").prio.kind, PrioritizerKind::rdac) << "DS4800";
  EXPECT_EQ(policies("IBM", "1726-3xx  FAStT").prio.kind, PrioritizerKind::rdac) << "DS3300";
  EXPECT_EQ(policies("EQLOGIC", "100E-00").path_grouping_policy, PathGroupingPolicy::multibus);
  EXPECT_EQ(policies("IET", "VIRTUAL-DISK").path_grouping_policy, PathGroupingPolicy::multibus);
  EXPECT_EQ(policies("NEXENTA", "COMSTAR").path_grouping_policy,
            PathGroupingPolicy::group_by_serial);
  EXPECT_EQ(policies("DGC", "VRAID").prio.kind, PrioritizerKind::emc);
  for (const auto& [vendor, product] :
       std::vector<std::pair<const char*, const char*>>{{"LIO-ORG", "disk0"},
                                                        {"SCST_BIO", "disk"},
                                                        {"SCST_FIO", "disk"},
                                                        {"NETAPP", "LUN C-Mode"},
                                                        {"Nimble", "Server"},
                                                        {"PURE", "FlashArray"},
                                                        {"COMPELNT", "Compellent Vol"},
                                                        {"DellEMC", "PowerStore"},
                                                        {"DataCore", "Virtual Disk"},
                                                        {"HPE", "MSA 2050 SAN"},
                                                        {"3PARdata", "VV"}}) {
    const PathPolicies alua = policies(vendor, product, 1);
    EXPECT_EQ(alua.path_grouping_policy, PathGroupingPolicy::group_by_prio) << vendor;
    EXPECT_EQ(alua.prio.kind, PrioritizerKind::alua) << vendor;
    EXPECT_EQ(alua.failback.kind, Failback::Kind::immediate) << vendor;
  }
}

TEST(ArrayTable, HasTheCheckersOfItsSource) {
  const ArrayTable table = built_in_arrays();
  const auto checker = [&](const char* vendor, const char* product) {
    LogicalUnitIdentity identity;
    identity.vendor = vendor;
    identity.product = product;
    return decide_policies({}, &table, &identity).path_checker;
  };
  EXPECT_EQ(checker("LIO-ORG", "disk0"), PathCheckerKind::directio);
  EXPECT_EQ(checker("IBM", "1815      FAStT"), PathCheckerKind::rdac);
  EXPECT_EQ(checker("DELL", "MD32xxi"), PathCheckerKind::rdac);
  EXPECT_EQ(checker("NETAPP", "INF-01-00"), PathCheckerKind::rdac);
  EXPECT_EQ(checker("NETAPP", "LUN C-Mode"), PathCheckerKind::tur);
  EXPECT_EQ(checker("IET", "VIRTUAL-DISK"), PathCheckerKind::tur);
}

TEST(ArrayTable, NoRowMakesAGuestsRequestsFail) {
  for (const ArrayRow& row : built_in_arrays()) {
    EXPECT_TRUE(!row.policies.no_path_retry || *row.policies.no_path_retry == std::nullopt)
        << row.vendor;
  }
}

// These are also what pairs of nodes are built of, each of which tells the same.
TEST(ArrayTable, NoVendorVouchesForTheSessionsOfItsTargets) {
  const auto vouches = [](const char* vendor) {
    LogicalUnitIdentity identity;
    identity.vendor = vendor;
    return decide_policies({}, &built_in_arrays(), &identity).portal_group_fences;
  };
  for (const char* vendor : {"IET", "LIO-ORG", "SUSE", "SCST_FIO"}) {
    EXPECT_EQ(vouches(vendor), PortalGroupFences::trial) << vendor;
  }
  for (const char* vendor : {"EQLOGIC", "NETAPP", "PURE", "DELL", "IBM", ""}) {
    EXPECT_EQ(vouches(vendor), PortalGroupFences::no) << vendor;
  }
  for (const ArrayRow& row : built_in_arrays()) {
    EXPECT_NE(row.policies.portal_group_fences, PortalGroupFences::yes) << row.vendor;
  }
  LogicalUnitIdentity identity;
  identity.vendor = "IET";
  for (const PortalGroupFences own : {PortalGroupFences::no, PortalGroupFences::yes}) {
    PathPolicySettings settings;
    settings.portal_group_fences = own;
    EXPECT_EQ(decide_policies(settings, &built_in_arrays(), &identity).portal_group_fences, own);
  }
}

TEST(Config, DevicesHaveAPathCheckerAndNoPathRetry) {
  const Configuration configuration = accepted(
      "[[device]]\nvendor = 'ACME'\npath_checker = 'rdac'\n"
      "no_path_retry = 12\n"
      "[[device]]\nvendor = 'ACME'\nproduct = 'Q'\n"
      "no_path_retry = 'queue'\n");
  const ArrayTable& table = *configuration.multipath.arrays;
  LogicalUnitIdentity identity;
  identity.vendor = "ACME";
  identity.product = "P";
  PathPolicies policies = decide_policies({}, &table, &identity);
  EXPECT_EQ(policies.path_checker, PathCheckerKind::rdac);
  EXPECT_EQ(policies.no_path_retry, seconds(60));
  identity.product = "Q";
  policies = decide_policies({}, &table, &identity);
  EXPECT_EQ(policies.path_checker, PathCheckerKind::rdac);
  EXPECT_EQ(policies.no_path_retry, std::nullopt);
  PathPolicySettings own;
  own.path_checker = PathCheckerKind::none;
  own.no_path_retry = NoPathRetry{seconds(0)};
  policies = decide_policies(own, &table, &identity);
  EXPECT_EQ(policies.path_checker, PathCheckerKind::none);
  EXPECT_EQ(policies.no_path_retry, seconds(0));
}

}  // namespace
}  // namespace iscsi_blkback
