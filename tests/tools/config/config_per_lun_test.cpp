// What is set for one LUN holds for that one, whatever other disks of the guest have and whichever
// of them comes first. Every option of the configuration file and of the disk line is in a table
// here: what is the session's makes a session of the disk's own, everything else is the disk's.
#include <set>

#include "multipath/attach/disk_config.h"
#include "multipath/attach/session_pool.h"
#include "tests/support/sim_reactor.h"
#include "tests/tools/config/config_text.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

enum class Of : std::uint8_t {
  session,    // the disks have a session each
  secret,     // likewise, but nothing of it is in the ISID
  discovery,  // of the session that asks for portals, which is the disk's own anyway
  disk,
  paths,  // which sessions there are
  fixed,  // only one value is accepted
};

struct PerLun {
  const char* name;
  const char* value;  // as in the file
  Of of;
  bool (*has_it)(const DiskConfig& config) = nullptr;  // disk, paths and discovery
};

constexpr const char* kTarget = "iqn.2009-02.com.example:t";

// [defaults] with CHAP both ways, and two LUNs of one target.
std::string two_luns(const std::string& setting) {
  return kChap +
         "node.session.auth.username_in = 'target'\n"
         "node.session.auth.password_in = 'target-secret-1'\n"
         "discovery.sendtargets.auth.authmethod = 'CHAP'\n"
         "discovery.sendtargets.auth.username = 'finder'\n"
         "discovery.sendtargets.auth.password = 'discovery-secret'\n"
         "discovery.sendtargets.auth.username_in = 'found'\n"
         "discovery.sendtargets.auth.password_in = 'discovery-secret-2'\n"
         "[luns.plain]\ntarget = 'iqn.2009-02.com.example:t'\nlun = 1\nportals = ['192.0.2.1']\n"
         "[luns.own]\ntarget = 'iqn.2009-02.com.example:t'\nlun = 2\nportals = ['192.0.2.1']\n" +
         setting;
}

DiskConfig plan_of(const Configuration& configuration, const std::string& params) {
  auto config = configure_disk(parse_disk_url(params).value(), configuration, "xvda", false);
  EXPECT_TRUE(config.has_value()) << config.error().message;
  return config.value_or(DiskConfig{});
}

// Both disks' sessions to one portal; the disks come in this order.
void expect_sessions(const DiskConfig& first, const DiskConfig& second, bool shared) {
  SimReactor reactor(1);
  SessionPool pool(reactor, 0, 5);
  const auto acquire = [&](const DiskConfig& config) {
    SessionOptions options = config.session;
    options.portal = SocketAddress::parse("192.0.2.1", 3260).value();
    return pool.acquire(options, config.session_variant).value();
  };
  Session* const one = acquire(first);
  Session* const two = acquire(second);
  EXPECT_EQ(one == two, shared);
  if (!shared) {
    EXPECT_NE(one->options().isid, two->options().isid);
    for (const auto& [session, config] : {std::pair(one, &first), std::pair(two, &second)}) {
      SessionOptions expected = config->session;
      expected.portal = session->options().portal;
      expected.isid = session->options().isid;
      EXPECT_EQ(session->options(), expected);
    }
  }
  pool.release(*one);
  pool.release(*two);
  EXPECT_TRUE(reactor.run_until([&] { return pool.empty(); }, 30s));
}

void expect_holds_for_one(const DiskConfig& plain, const DiskConfig& own, Of of,
                          bool (*has_it)(const DiskConfig& config)) {
  const bool of_session = of == Of::session || of == Of::secret;
  expect_sessions(plain, own, !of_session);
  expect_sessions(own, plain, !of_session);
  EXPECT_EQ(plain.session_variant, 0U);
  EXPECT_EQ(own.session_variant != 0, of == Of::session);
  if (has_it != nullptr) {
    EXPECT_FALSE(has_it(plain));
    EXPECT_TRUE(has_it(own));
  } else {
    EXPECT_EQ(plain.session == own.session, of == Of::fixed);
  }
}

constexpr PerLun kOptions[] = {
    {"path_grouping_policy", "'failover'", Of::disk,
     [](const DiskConfig& p) { return p.multipath.path_grouping_policy.has_value(); }},
    {"path_selector", "'queue-length 0'", Of::disk,
     [](const DiskConfig& p) {
       return p.multipath.path_selector == PathSelectorKind::queue_length;
     }},
    {"rr_min_io", "7", Of::disk, [](const DiskConfig& p) { return p.multipath.rr_min_io == 7U; }},
    {"rr_weight", "'priorities'", Of::disk,
     [](const DiskConfig& p) { return p.multipath.rr_weight == RrWeight::priorities; }},
    {"prio", "'const'", Of::disk, [](const DiskConfig& p) { return p.multipath.prio.has_value(); }},
    {"prio_args", "'exclusive_pref_bit'\nprio = 'alua'", Of::disk,
     [](const DiskConfig& p) { return p.multipath.prio && p.multipath.prio->exclusive_pref_bit; }},
    {"failback", "'manual'", Of::disk,
     [](const DiskConfig& p) { return p.multipath.failback.has_value(); }},
    {"pg_init_retries", "7", Of::disk,
     [](const DiskConfig& p) { return p.multipath.pg_init_retries == 7U; }},
    {"pg_init_delay", "0.5", Of::disk,
     [](const DiskConfig& p) { return p.multipath.pg_init_delay == 500ms; }},
    {"path_weights", "'portal * 3'", Of::disk,
     [](const DiskConfig& p) { return p.multipath.path_weights.size() == 1; }},
    {"no_path_retry", "'fail'", Of::disk,
     [](const DiskConfig& p) { return p.multipath.no_path_retry == NoPathRetry(0ms); }},
    {"features", "'1 queue_if_no_path'", Of::disk,
     [](const DiskConfig& p) { return p.multipath.no_path_retry.has_value(); }},
    {"polling_interval", "7", Of::disk,
     [](const DiskConfig& p) { return p.multipath.polling_interval == 7s; }},
    {"path_checker", "'tur'", Of::disk,
     [](const DiskConfig& p) { return p.multipath.path_checker.has_value(); }},
    {"max_polling_interval", "77", Of::disk,
     [](const DiskConfig& p) { return p.multipath.max_polling_interval == 77s; }},
    {"marginal_path_double_failed_time", "7", Of::disk,
     [](const DiskConfig& p) { return p.multipath.marginal.double_failed_time == 7s; }},
    {"marginal_path_err_recheck_gap_time", "7", Of::disk,
     [](const DiskConfig& p) { return p.multipath.marginal.err_recheck_gap_time == 7s; }},
    {"checker_timeout", "7", Of::disk,
     [](const DiskConfig& p) { return p.multipath.checker_timeout == 7s; }},
    {"auto_resize", "'never'", Of::disk, [](const DiskConfig& p) { return !p.multipath.grows; }},
    {"reservation_key", "'0x7'", Of::disk,
     [](const DiskConfig& p) { return p.multipath.reservation_key == 7; }},
    {"exclusive_luns", "'Yes'", Of::disk,
     [](const DiskConfig& p) { return p.multipath.exclusive_luns; }},
    {"shared", "'Yes'", Of::disk, [](const DiskConfig& p) { return p.multipath.shared; }},
    {"sector_size", "4096", Of::disk, [](const DiskConfig& p) { return p.sector_size == 4096; }},
    {"portal_group_fences", "'Yes'", Of::disk,
     [](const DiskConfig& p) { return p.multipath.portal_group_fences == PortalGroupFences::yes; }},
    {"redirected_login_fences", "'Yes'", Of::disk,
     [](const DiskConfig& p) { return p.multipath.redirected_login_fences; }},
    {"capacity_polling_interval", "7", Of::disk,
     [](const DiskConfig& p) { return p.multipath.capacity_polling_interval == 7s; }},
    {"no_space", "'fail'", Of::disk,
     [](const DiskConfig& p) { return p.multipath.no_space == NoSpacePolicy::fail; }},
    {"quiesce_time", "77", Of::disk,
     [](const DiskConfig& p) { return p.multipath.quiesce_time == 77s; }},
    {"fence_settle_time", "7", Of::disk,
     [](const DiskConfig& p) { return p.multipath.fence_settle_time == 7s; }},
    {"login_timeout", "7", Of::session},
    {"logout_timeout", "7", Of::session},
    {"noop_out_interval", "7", Of::session},
    {"noop_out_timeout", "7", Of::session},
    {"abort_timeout", "7", Of::session},
    {"lu_reset_timeout", "7", Of::session},
    {"tgt_reset_timeout", "7", Of::session},
    {"cmds_max", "7", Of::session},
    {"connect_timeout", "7", Of::session},
    {"stall_probe", "0.7", Of::session},
    {"path_timeout", "7", Of::session},
    {"command_timeout", "7", Of::session},
    {"tcp_user_timeout", "7", Of::session},
    {"relogin_backoff_min", "0.7", Of::session},
    {"relogin_backoff_max", "7", Of::session},
    {"authmethod", "'None'", Of::session},
    {"chap_algs", "'SHA256'", Of::session},
    {"username", "'host2'", Of::session},
    {"password", "'another-secret-1'", Of::secret},
    {"username_in", "'another'", Of::session},
    {"password_in", "'another-secret-2'", Of::secret},
    {"discovery.sendtargets.auth.authmethod", "'None'", Of::discovery,
     [](const DiskConfig& p) { return !p.session.discovery_chap.enabled(); }},
    {"discovery.sendtargets.auth.chap_algs", "'MD5'", Of::discovery,
     [](const DiskConfig& p) { return p.session.discovery_chap.algorithms.size() == 1; }},
    {"discovery.sendtargets.auth.username", "'seeker'", Of::discovery,
     [](const DiskConfig& p) { return p.session.discovery_chap.username == "seeker"; }},
    {"discovery.sendtargets.auth.password", "'another-secret-3'", Of::discovery,
     [](const DiskConfig& p) { return p.session.discovery_chap.password == "another-secret-3"; }},
    {"discovery.sendtargets.auth.username_in", "'sought'", Of::discovery,
     [](const DiskConfig& p) { return p.session.discovery_chap.username_in == "sought"; }},
    {"discovery.sendtargets.auth.password_in", "'another-secret-4'", Of::discovery,
     [](const DiskConfig& p) {
       return p.session.discovery_chap.password_in == "another-secret-4";
     }},
    {"nr_sessions", "7", Of::paths,
     [](const DiskConfig& p) { return p.paths.sessions_per_portal == 7; }},
    {"interfaces", "['eth7']", Of::paths,
     [](const DiskConfig& p) { return p.paths.interfaces.size() == 1; }},
    {"iface.net_ifacename", "'eth7'", Of::paths,
     [](const DiskConfig& p) { return p.paths.interfaces.size() == 1; }},
    {"iface.ipaddress", "'192.0.2.77'", Of::paths,
     [](const DiskConfig& p) { return p.paths.interfaces.size() == 1; }},
    {"iface.hwaddress", "'52:54:00:12:34:56'", Of::paths,
     [](const DiskConfig& p) { return p.paths.interfaces.size() == 1; }},
    {"HeaderDigest", "'CRC32C'", Of::session},
    {"DataDigest", "'CRC32C'", Of::session},
    {"InitiatorAlias", "'seven'", Of::session},
    {"ErrorRecoveryLevel", "0", Of::fixed},
    {"MaxConnections", "1", Of::fixed},
    {"DataPDUInOrder", "'Yes'", Of::fixed},
    {"DataSequenceInOrder", "'Yes'", Of::fixed},
    {"InitialR2T", "'Yes'", Of::session},
    {"ImmediateData", "'No'", Of::session},
    {"FirstBurstLength", "7168", Of::session},
    {"MaxBurstLength", "716800", Of::session},
    {"MaxRecvDataSegmentLength", "7168", Of::session},
    {"MaxOutstandingR2T", "7", Of::session},
    {"DefaultTime2Wait", "7", Of::session},
    {"DefaultTime2Retain", "7", Of::session},
};

void PrintTo(const PerLun& option, std::ostream* out) {
  *out << option.name;
}

class OptionOfOneLun : public testing::TestWithParam<PerLun> {};

TEST_P(OptionOfOneLun, HoldsForThatOneInWhicheverOrderTheDisksCome) {
  const PerLun& option = GetParam();
  const Configuration configuration =
      accepted(two_luns(std::string(option.name) + " = " + option.value + "\n"));
  expect_holds_for_one(plan_of(configuration, "iscsi:plain"), plan_of(configuration, "iscsi:own"),
                       option.of, option.has_it);
}

INSTANTIATE_TEST_SUITE_P(All, OptionOfOneLun, testing::ValuesIn(kOptions), [](const auto& test) {
  std::string name = test.param.name;
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
});

TEST(OptionsOfOneLun, AreAllInTheTable) {
  std::multiset<std::string_view> in_table;
  for (const PerLun& option : kOptions) {
    in_table.insert(option.name);
  }
  const auto settings = configuration_settings();
  EXPECT_THAT(in_table, testing::UnorderedElementsAreArray(settings));
}

// What the whole target has is ordinary for all of its disks, and their ISIDs are those that they
// have always had; and a LUN that says the same once more has nothing of its own.
TEST(OptionsOfOneLun, AreNoneWhereItsTargetHasTheSame) {
  const Configuration configuration = accepted(
      "[targets.'iqn.2009-02.com.example:t']\ncommand_timeout = 60\n"
      "[luns.plain]\ntarget = 'iqn.2009-02.com.example:t'\nlun = 1\nportals = ['192.0.2.1']\n"
      "[luns.own]\ntarget = 'iqn.2009-02.com.example:t'\nlun = 2\nportals = ['192.0.2.1']\n"
      "command_timeout = 60\n");
  const DiskConfig plain = plan_of(configuration, "iscsi:plain");
  const DiskConfig own = plan_of(configuration, "iscsi:own");
  EXPECT_EQ(plain.session.command_timeout, 60s);
  expect_sessions(plain, own, true);
  EXPECT_EQ(plain.session_variant, 0U);
  EXPECT_EQ(own.session_variant, 0U);
  const DiskConfig by_url =
      plan_of(configuration, std::string("iscsi://192.0.2.1/") + kTarget + "/3?login_timeout=15");
  expect_sessions(plain, by_url, true);
}

// --- behind '?' in a disk line

struct OfDiskLine {
  const char* setting;
  Of of;
  bool (*has_it)(const DiskConfig& config) = nullptr;
};

constexpr OfDiskLine kDiskLineSettings[] = {
    {"path_grouping_policy=failover", Of::disk,
     [](const DiskConfig& p) { return p.multipath.path_grouping_policy.has_value(); }},
    {"path_selector=queue-length", Of::disk,
     [](const DiskConfig& p) {
       return p.multipath.path_selector == PathSelectorKind::queue_length;
     }},
    {"rr_min_io=7", Of::disk, [](const DiskConfig& p) { return p.multipath.rr_min_io == 7U; }},
    {"prio=alua&prio_args=exclusive_pref_bit", Of::disk,
     [](const DiskConfig& p) { return p.multipath.prio && p.multipath.prio->exclusive_pref_bit; }},
    {"failback=manual", Of::disk,
     [](const DiskConfig& p) { return p.multipath.failback.has_value(); }},
    {"no_path_retry=fail", Of::disk,
     [](const DiskConfig& p) { return p.multipath.no_path_retry == NoPathRetry(0ms); }},
    {"polling_interval=7", Of::disk,
     [](const DiskConfig& p) { return p.multipath.polling_interval == 7s; }},
    {"checker_timeout=7", Of::disk,
     [](const DiskConfig& p) { return p.multipath.checker_timeout == 7s; }},
    {"wwid=36001405abcdef0123456789abcdef012", Of::disk,
     [](const DiskConfig& p) { return p.multipath.wwid.has_value(); }},
    {"login_timeout=7", Of::session},
    {"logout_timeout=7", Of::session},
    {"noop_out_interval=7", Of::session},
    {"noop_out_timeout=7", Of::session},
};

TEST(SettingOfADiskLine, HoldsForThatDiskInWhicheverOrderTheyCome) {
  const Configuration configuration = accepted("");
  const std::string url = std::string("iscsi://192.0.2.1/") + kTarget;
  for (const OfDiskLine& line : kDiskLineSettings) {
    SCOPED_TRACE(line.setting);
    expect_holds_for_one(plan_of(configuration, url + "/1"),
                         plan_of(configuration, url + "/2?" + line.setting), line.of, line.has_it);
  }
}

}  // namespace
}  // namespace iscsi_blkback
