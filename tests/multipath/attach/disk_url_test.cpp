#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <sstream>

#include "base/printable_text.h"
#include "multipath/attach/discovery_state.h"
#include "multipath/attach/disk_config.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

DiskUrl parsed(const std::string& params) {
  auto target = parse_disk_url(params);
  EXPECT_TRUE(target) << params << ": " << (target ? "" : target.error().message);
  return target ? *target : DiskUrl{};
}

std::string refusal(const std::string& params) {
  auto target = parse_disk_url(params);
  EXPECT_FALSE(target) << params;
  return target ? "" : target.error().message;
}

TEST(DiskUrl, OnlyIscsiIsOurs) {
  EXPECT_TRUE(is_iscsi_params("aio:iscsi://h/iqn.a/1"));
  EXPECT_TRUE(is_iscsi_params("iscsi:alias"));
  EXPECT_TRUE(is_iscsi_params("aio:iscsi:"));
  EXPECT_FALSE(is_iscsi_params("aio:/dev/vg/lv"));
  EXPECT_FALSE(is_iscsi_params("qcow2:/images/iscsi:x"));
  EXPECT_FALSE(is_iscsi_params("aio:/dev/iscsi:x"));
  EXPECT_FALSE(is_iscsi_params("aio:iscsid:x"));
  EXPECT_FALSE(is_iscsi_params("nbd:iscsi:x"));
  EXPECT_FALSE(is_iscsi_params("aio:"));
  EXPECT_FALSE(is_iscsi_params("aio: "));
  EXPECT_FALSE(is_iscsi_params(""));
  EXPECT_FALSE(is_iscsi_params("iscsi"));
}

struct WrongLine {
  const char* params;
  const char* said;
};

// What xl accepts, and nobody would serve: the guest would wait for its disk without a word.
TEST(DiskUrl, ATargetThatIsWrittenWrongIsOursToRefuse) {
  for (const WrongLine& line : {
           WrongLine{"qcow2:iscsi://h/iqn.a:b/1", "format=qcow2"},
           WrongLine{"qcow:iscsi:a", "format=qcow:"},
           WrongLine{"vhd:iscsi:a", "format=vhd"},
           WrongLine{"qed:iscsi:a", "format=qed"},
           WrongLine{"aio: iscsi:a", "blank stands before iscsi:"},
           WrongLine{"aio:\tiscsi:a", "blank stands before iscsi:"},
           WrongLine{" iscsi:a", "blank stands before iscsi:"},
           WrongLine{"aio:'iscsi:a'", "quotation mark"},
           WrongLine{"aio:\"iscsi://h/iqn.a:b/1\"", "quotation mark"},
           WrongLine{"aio: 'iscsi:a'", "blank stands before iscsi:"},
           WrongLine{"qcow2: \"iscsi:a", "format=qcow2"},
           WrongLine{"aio:ISCSI:a", "small letters"},
           WrongLine{"aio:iSCSI://h/iqn.a:b/1", "small letters"},
           WrongLine{"aio:iscsi ://h/iqn.a:b/1", "blank"},
           WrongLine{"aio:iscsi:a\"", "quotation mark"},
           WrongLine{"aio:iscsi://h/iqn.a:b/1'", "quotation mark"},
           WrongLine{"aio:iscsi://h/iqn.a:b/1 ", "blank stands at the end of"},
           WrongLine{"aio:iscsi:a\t", "blank stands at the end of"},
           WrongLine{"aio:iscsi:a\r", "blank stands at the end of"},
           WrongLine{"aio:iscsi://h/iqn.a:b/1 ?shared=yes", "blank"},
           WrongLine{"aio:iscsi: a", "blank"},
           WrongLine{"aio:iscsi:a?shared=yes ", "blank stands at the end of"},
       }) {
    EXPECT_TRUE(is_iscsi_params(line.params)) << line.params;
    EXPECT_THAT(refusal(line.params), HasSubstr(line.said)) << line.params;
  }
}

TEST(DiskUrl, ASecretInATargetThatIsWrittenWrongIsNotRepeatedEither) {
  for (const char* params :
       {"qcow2:iscsi://joe%hunter2@h/iqn.a:b/1", "aio: iscsi://hunter2@h/iqn.a:b/1",
        "aio:ISCSI://h/iqn.a:b/1?password=hunter2", "aio:iscsi:a?chap=hunter2,access=ro"}) {
    EXPECT_THAT(refusal(params), AllOf(HasSubstr("credentials"), Not(HasSubstr("hunter2"))));
  }
}

// `target=` takes the rest of the line. Whoever writes access=ro behind it believes that the disk
// is read-only.
TEST(DiskUrl, RefusesByNameWhatTheRestOfTheLineHasSwallowed) {
  for (const WrongLine& line : {
           WrongLine{"aio:iscsi://h/iqn.a:b/1,access=ro", "access="},
           WrongLine{"aio:iscsi://h,i/iqn.a:b/1,access=r", "access="},
           WrongLine{"aio:iscsi://h/iqn.a:b/1, access=ro", "access="},
           WrongLine{"aio:iscsi:iqn.a:b,access=ro", "access="},
           WrongLine{"aio:iscsi:iqn.a:b/2,vdev=xvdb", "vdev="},
           WrongLine{"aio:iscsi:alias,access=ro", "access="},
           WrongLine{"aio:iscsi:alias,vdev=xvda,access=rw", "vdev="},
           WrongLine{"aio:iscsi:alias?shared=yes,access=ro", "access="},
           WrongLine{"aio:iscsi:alias?no_path_retry=30s,vdev=xvda", "vdev="},
           WrongLine{"aio:iscsi:alias,backendtype=tap", "backendtype="},
           WrongLine{"aio:iscsi:alias,script=block-iscsi-blkback", "script="},
           WrongLine{"aio:iscsi:alias,format=raw", "format="},
           WrongLine{"aio:iscsi:alias,devtype=cdrom", "devtype="},
           WrongLine{"aio:iscsi:alias,backend=storage", "backend="},
           WrongLine{"aio:iscsi:alias,ro", "ro "},
           WrongLine{"aio:iscsi:alias , access = ro ", "access="},
           WrongLine{"aio:iscsi:alias, ro ", "ro "},
           WrongLine{"aio:iscsi:alias,readonly", "readonly "},
           WrongLine{"aio:iscsi:alias,discard", "discard "},
           WrongLine{"aio:iscsi://h/iqn.a:b/1,no-discard", "no-discard "},
           WrongLine{"aio:iscsi://h/iqn.a:b/1,direct-io-safe", "direct-io-safe "},
           WrongLine{"aio:iscsi://h/iqn.a:b/1,cdrom", "cdrom "},
           WrongLine{"aio:iscsi://h/iqn.a:b/1,xvda,w", "w "},
           WrongLine{"aio:iscsi:alias,ACCESS=ro", "access="},
           WrongLine{"aio:iscsi:alias?no_path_retry=30s,Access=ro", "access="},
           WrongLine{"aio:iscsi://h/iqn.a:b/1?wwid=1x,ACCESS=ro", "access="},
           WrongLine{"aio:iscsi://h/iqn.a:b/1,,access=ro", "access="},
           WrongLine{"aio:iscsi://h/iqn.a:b/1?shared=yes&,RO", "ro "},
           WrongLine{"aio:iscsi:alias,specification=xen", "specification="},
           WrongLine{"aio:iscsi:alias,transport=mmio", "transport="},
           WrongLine{"aio:iscsi:alias,grant_usage=enabled", "grant_usage="},
           WrongLine{"aio:iscsi:alias,colo", "colo "},
           WrongLine{"aio:iscsi:alias,colo-host=h", "colo-host="},
           WrongLine{"aio:iscsi:alias,colo-port=1", "colo-port="},
           WrongLine{"aio:iscsi:alias,colo-export=e", "colo-export="},
           WrongLine{"aio:iscsi:alias,active-disk=a", "active-disk="},
           WrongLine{"aio:iscsi:alias,hidden-disk=a", "hidden-disk="},
       }) {
    EXPECT_THAT(refusal(line.params),
                AllOf(HasSubstr(line.said), HasSubstr("takes the rest of the disk line")))
        << line.params;
  }
}

// A portal may be called like a word of the line, and rules of a prio have commas.
TEST(DiskUrl, CommasThatAreMeantAreNotTakenForTheRestOfTheLine) {
  EXPECT_EQ(parsed("aio:iscsi://h,ro,cdrom/iqn.a:b/1").portals.size(), 3U);
  EXPECT_TRUE(parsed("aio:iscsi:a?prio=weightedpath&prio_args=portal%20a%2010,portal%20b%2020")
                  .settings.prio);
}

TEST(DiskUrl, RefusesANameWithCharactersThatNoIscsiNameHas) {
  for (const char* params :
       {"iscsi:iqn.a:b,c", "iscsi:iqn.a:b=c", "iscsi://h/iqn.a:b,c/1", "iscsi://h/iqn.a:b=c/1",
        "iscsi://h/iqn.a:b%2cc/1", "iscsi://h/iqn.a:b%3Dc/1", "iscsi:iqn.a:b,c/1",
        "iscsi:eui.0123456789abcde,", "iscsi:iqn.a:=", "iscsi:iqn.2009-02.com.example:vm,1/0"}) {
    EXPECT_THAT(refusal(params), HasSubstr("a comma or '='")) << params;
  }
  EXPECT_EQ(parsed("iscsi:iqn.a:b_c/1").target_name, "iqn.a:b_c") << "some targets have it";
}

TEST(DiskUrl, UrlWithOnePortal) {
  const DiskUrl target = parsed("aio:iscsi://192.0.2.1/iqn.2009-02.com.example:disk/1");
  ASSERT_EQ(target.portals.size(), 1u);
  EXPECT_EQ(target.portals[0].host, "192.0.2.1");
  EXPECT_EQ(target.portals[0].port, 3260);
  EXPECT_EQ(target.target_name, "iqn.2009-02.com.example:disk");
  EXPECT_EQ(target.lun, 1);
}

TEST(DiskUrl, UrlWithSeveralPortals) {
  const DiskUrl target =
      parsed("iscsi://storage-1:860,[2001:db8::2]:3261,[2001:db8::3],192.0.2.4/naa.5000/16383");
  ASSERT_EQ(target.portals.size(), 4u);
  EXPECT_EQ(target.portals[0].to_string(), "storage-1:860");
  EXPECT_EQ(target.portals[1].to_string(), "[2001:db8::2]:3261");
  EXPECT_EQ(target.portals[2].to_string(), "[2001:db8::3]:3260");
  EXPECT_EQ(target.portals[3].to_string(), "192.0.2.4:3260");
  EXPECT_EQ(target.lun, 16383);
}

TEST(DiskUrl, UrlWithAnEscapedTargetName) {
  EXPECT_EQ(parsed("iscsi://h/iqn.2009-02.com.example%3adisk%2F1/0").target_name,
            "iqn.2009-02.com.example:disk/1");
}

TEST(DiskUrl, TargetNameWithAndWithoutLun) {
  EXPECT_EQ(parsed("iscsi:iqn.2009-02.com.example:disk/3").lun, 3);
  const DiskUrl target = parsed("aio:iscsi:eui.0123456789abcdef");
  EXPECT_EQ(target.target_name, "eui.0123456789abcdef");
  EXPECT_EQ(target.lun, 0);
  EXPECT_TRUE(target.portals.empty());
}

TEST(DiskUrl, Alias) {
  const DiskUrl target = parsed("iscsi:web-01_data.root");
  EXPECT_EQ(target.alias, "web-01_data.root");
  EXPECT_TRUE(target.target_name.empty());
}

TEST(DiskUrl, Settings) {
  const DiskUrl target = parsed(
      "iscsi:a?path_grouping_policy=failover&path_selector=round-robin 0&rr_min_io=8"
      "&no_path_retry=30s&polling_interval=2&checker_timeout=3&login_timeout=4"
      "&logout_timeout=5&noop_out_interval=0&noop_out_timeout=6");
  EXPECT_EQ(target.settings.path_grouping_policy, PathGroupingPolicy::failover);
  EXPECT_EQ(target.settings.path_selector, PathSelectorKind::round_robin);
  EXPECT_EQ(target.settings.rr_min_io, 8u);
  EXPECT_EQ(target.settings.no_path_retry, "30s");
  EXPECT_EQ(target.settings.polling_interval, 2s);
  EXPECT_EQ(target.settings.checker_timeout, 3s);
  EXPECT_EQ(target.settings.login_timeout, 4s);
  EXPECT_EQ(target.settings.logout_timeout, 5s);
  EXPECT_EQ(target.settings.noop_out_interval, 0s);
  EXPECT_EQ(target.settings.noop_out_timeout, 6s);
}

TEST(DiskUrl, NoPathRetry) {
  EXPECT_EQ(parse_no_path_retry("queue")->with(5s), std::nullopt);
  EXPECT_EQ(parse_no_path_retry("fail")->with(5s), 0ms);
  EXPECT_EQ(parse_no_path_retry("12")->with(5s), 60s);
  EXPECT_EQ(parse_no_path_retry("12s")->with(5s), 12s);
  EXPECT_EQ(parse_no_path_retry("0")->with(5s), 0ms) << "as for multipathd";
  EXPECT_EQ(parse_no_path_retry("0s")->with(5s), 0ms);
  EXPECT_EQ(parse_no_path_retry("2.5s")->with(5s), 2500ms);
  EXPECT_EQ(parse_no_path_retry("0.05s")->with(5s), 50ms);
  for (const char* wrong :
       {"", "s", "-1", "1.5", "12m", "86401", "99999999999999999999", "00x", "1.s", ".5s", "1.5.5s",
        "1e3s", "0x10", "86400.5s", "Queue", "FAIL", "queue ", "-0"}) {
    EXPECT_FALSE(parse_no_path_retry(wrong)) << wrong;
  }
}

TEST(DiskUrl, SecondsMayHaveDecimals) {
  EXPECT_EQ(parsed("iscsi:a?polling_interval=2.5").settings.polling_interval, 2500ms);
  EXPECT_EQ(parsed("iscsi:a?polling_interval=0.1").settings.polling_interval, 100ms);
  EXPECT_EQ(parsed("iscsi:a?checker_timeout=0.25").settings.checker_timeout, 250ms);
  EXPECT_EQ(parsed("iscsi:a?login_timeout=15.0").settings.login_timeout, 15s);
  EXPECT_EQ(parsed("iscsi:a?logout_timeout=1.001").settings.logout_timeout, 1001ms);
  EXPECT_EQ(parsed("iscsi:a?noop_out_interval=0.0").settings.noop_out_interval, 0ms);
  EXPECT_EQ(parsed("iscsi:a?noop_out_timeout=3600").settings.noop_out_timeout, 3600s);
  EXPECT_EQ(parsed("iscsi:a?no_path_retry=0.5s").settings.no_path_retry, "0.5s");
  for (const char* wrong : {"0.05", "3600.1", ".5", "5.", "1,5", "1.5s", "1e1", "+1", "-1", "",
                            "1.2.3", "nan", "inf", "0x10", " 1", "99999999999999999999"}) {
    EXPECT_THAT(refusal("iscsi:a?login_timeout="s + wrong),
                HasSubstr("login_timeout is not a number of seconds from 0.1 to 3600"))
        << wrong;
  }
}

// `multipath -t` of 0.9.4 and 0.11.1 shows failback 0 as manual.
TEST(DiskUrl, ZeroIsTakenAsMultipathToolsTakeIt) {
  EXPECT_EQ(parsed("iscsi:a?failback=0").settings.failback, Failback{});
  EXPECT_EQ(parsed("iscsi:a?no_path_retry=0").settings.no_path_retry, "0");
  EXPECT_EQ(parse_failback("00").value_or(Failback{Failback::Kind::immediate, {}}), Failback{});
  for (const char* wrong : {"-1", "0s", "3601", "", " 0", "0x0", "Manual", "1.5"}) {
    EXPECT_FALSE(parse_failback(wrong)) << wrong;
  }
}

TEST(DiskUrl, RefusesASecretWithoutRepeatingIt) {
  for (const char* params : {
           "aio:iscsi://joe%hunter2@192.0.2.1/iqn.2009-02.com.example:d/1",
           "iscsi://joe%hunter2/iqn.2009-02.com.example:d/1",
           "iscsi://hunter2@192.0.2.1/iqn.2009-02.com.example:d/1",
           "iscsi://192.0.2.1/iqn.2009-02.com.example:d/1?target_password=hunter2",
           "iscsi://192.0.2.1/iqn.2009-02.com.example:d/1?target_user=joe&PASSWORD=hunter2",
           "iscsi://192.0.2.1/iqn.2009-02.com.example:d/1?chap=hunter2",
           "iscsi://192.0.2.1/iqn.2009-02.com.example:d/1?chap_secret=hunter2",
           "iscsi:alias?username=hunter2",
           "iscsi:hunter2@alias",
       }) {
    const std::string sentence = refusal(params);
    EXPECT_THAT(sentence, HasSubstr("credentials")) << params;
    EXPECT_THAT(sentence, Not(HasSubstr("hunter2"))) << params;
    EXPECT_THAT(sentence, Not(HasSubstr("joe"))) << params;
  }
}

TEST(DiskUrl, ATargetNamedLikeASecretIsFine) {
  EXPECT_EQ(parsed("iscsi://h/iqn.2009-02.com.example:chapter-secret/1").target_name,
            "iqn.2009-02.com.example:chapter-secret");
}

TEST(DiskUrl, NoRefusalRepeatsWhatItWasGiven) {
  // A secret may stand in any wrong place; only the names of known settings are repeated.
  for (const char* params : {
           "iscsi://hunter2",
           "iscsi://h/hunter2/1",
           "iscsi://h/iqn.a:b/hunter2",
           "iscsi://h:hunter2/iqn.a:b/1",
           "iscsi://[hunter2]/iqn.a:b/1",
           "iscsi:hunter2:x",
           "iscsi:a?hunter2=1",
           "iscsi:a?rr_min_io=hunter2",
           "iscsi:a?no_path_retry=hunter2",
           "iscsi:a?hunter2",
           "iscsi:a?path_selector=hunter2",
           "iscsi:a?prio=hunter2",
           "iscsi:a?prio=iet&prio_args=hunter2",
           "iscsi:a?prio_args=hunter2",
           "iscsi:a?failback=hunter2",
           "iscsi:a?login_timeout=hunter2",
       }) {
    EXPECT_THAT(refusal(params), Not(HasSubstr("hunter2"))) << params;
  }
}

// So that it need not be repeated; what is right in itself is.
TEST(DiskUrl, OfSeveralPartsARefusalTellsWhichOneItIsAbout) {
  for (const WrongLine& line : {
           WrongLine{"iscsi://h,i,H:3260/iqn.a:b/1", "the portal H:3260 is named twice"},
           WrongLine{"iscsi://h/iqn.a:b;i,i/iqn.a:c/1", "the portal i:3260 is named twice"},
           WrongLine{"iscsi://h/iqn.a:b;i/iqn.a:c;i/iqn.a:c/1",
                     "the portal i:3260 of iqn.a:c is named twice"},
           WrongLine{"iscsi://h,1,i:x/iqn.a:b/1", "from 1 to 65535 (portal 2 of the target)"},
           WrongLine{"iscsi://h:x,i/iqn.a:b/1", "from 1 to 65535 (portal 1 of the target)"},
           WrongLine{"iscsi://h,i/iqn.a:b;j:x/iqn.a:c/1", "(portal 3 of the target)"},
           WrongLine{"iscsi://h/iqn.a:b;i/disk/1",
                     "(RFC 7143 4.2.7) (target name 2 of the target)"},
           WrongLine{"iscsi:iqn.a:b;iqn.a:c;disk/1", "(target name 3 of the target)"},
           WrongLine{"iscsi:iqn.a:b;iqn.a:c;IQN.A:C/1", "the target name IQN.A:C is given twice"},
           WrongLine{"iscsi:a?shared=yes&rr_min_oi=1",
                     "setting 2 behind '?' is unknown; known are"},
           WrongLine{"iscsi:a?shared=yes&&rr_min_io=1", "setting 2 behind '?' is not of the form"},
           WrongLine{"iscsi:iqn.a: b/1",
                     "a blank stands in the target, 6 characters behind iscsi:"},
           WrongLine{"iscsi://h/iqn.a:b/x", "the LUN, behind the last '/', is not a number"},
       }) {
    EXPECT_THAT(refusal(line.params), HasSubstr(line.said)) << line.params;
  }
  EXPECT_THAT(refusal("iscsi://h:x/iqn.a:b/1"), Not(HasSubstr("portal 1")));
  EXPECT_THAT(refusal("iscsi://h/disk/1"), Not(HasSubstr("target name 1")));
}

TEST(DiskUrl, RefusesAMissingLun) {
  EXPECT_THAT(refusal("iscsi://h/iqn.2009-02.com.example:d"), HasSubstr("LUN is missing"));
}

TEST(DiskUrl, RefusesAMissingTargetName) {
  EXPECT_THAT(refusal("iscsi://h"), HasSubstr("target name"));
  EXPECT_THAT(refusal("iscsi://h//1"), HasSubstr("target name"));
}

TEST(DiskUrl, RefusesATargetNameOfNoKnownType) {
  EXPECT_THAT(refusal("iscsi://h/disk/1"), HasSubstr("iqn., eui. or naa."));
}

TEST(DiskUrl, RefusesATargetNameThatIsTooLong) {
  EXPECT_THAT(refusal("iscsi://h/iqn." + std::string(220, 'a') + "/1"), HasSubstr("224 bytes"));
}

TEST(DiskUrl, RefusesABrokenEscape) {
  EXPECT_THAT(refusal("iscsi://h/iqn.a%3/1"), HasSubstr("%"));
  EXPECT_THAT(refusal("iscsi://h/iqn.a%zz/1"), HasSubstr("%"));
}

TEST(DiskUrl, RefusesControlCharactersInATargetName) {
  EXPECT_THAT(refusal("iscsi://h/iqn.a%00b/1"), HasSubstr("control"));
  EXPECT_THAT(refusal("iscsi://h/iqn.a%20b/1"), HasSubstr("blank"));
}

TEST(DiskUrl, RefusesALunThatIsNoNumber) {
  for (const char* lun : {"x", "-1", "1x", "", "16384", "99999999999", "0x1"}) {
    EXPECT_THAT(refusal(std::string("iscsi://h/iqn.a:b/") + lun), HasSubstr("LUN")) << lun;
  }
}

TEST(DiskUrl, RefusesAPortalWithoutAHost) {
  EXPECT_THAT(refusal("iscsi:///iqn.a:b/1"), HasSubstr("no host"));
  EXPECT_THAT(refusal("iscsi://:3260/iqn.a:b/1"), HasSubstr("no host"));
  EXPECT_THAT(refusal("iscsi://h,/iqn.a:b/1"), HasSubstr("no host"));
}

TEST(DiskUrl, RefusesAWrongPort) {
  for (const char* port : {"0", "65536", "x", "", "-1"}) {
    EXPECT_THAT(refusal(std::string("iscsi://h:") + port + "/iqn.a:b/1"), HasSubstr("port"))
        << port;
  }
}

TEST(DiskUrl, PortalsHaveManySpellings) {
  struct Case {
    const char* portals;
    const char* understood;
  };
  const Case cases[] = {
      {"2001:db8::1", "[2001:db8::1]:3260"},
      {"[2001:db8::1]", "[2001:db8::1]:3260"},
      {"192.0.2.1:3260,1", "192.0.2.1:3260"},
      {"192.0.2.1:3260,1,192.0.2.2:3260,2", "192.0.2.1:3260 192.0.2.2:3260"},
      {"192.0.2.1,1,192.0.2.2,1", "192.0.2.1:3260 192.0.2.2:3260"},
      {"192.0.2.1:3260,-1", "192.0.2.1:3260"},
      {"[2001:db8::1]:3260,4294967295", "[2001:db8::1]:3260"},
      {"[2001:db8::1]:3260,1,san,2", "[2001:db8::1]:3260 san:3260"},
      {"fe80::1%eth1,fe80::1%eth2", "[fe80::1%eth1]:3260 [fe80::1%eth2]:3260"},
      {"[fe80::1%eth1]:3261,[fe80::1%eth2],2", "[fe80::1%eth1]:3261 [fe80::1%eth2]:3260"},
      {"fe80::1%eth1:3261", "[fe80::1%eth1]:3261"},
      {"[fe80::1%25eth1]", "[fe80::1%eth1]:3260"},
      {"[fe80::1%25eth1]:3261,san", "[fe80::1%eth1]:3261 san:3260"},
      {"[fe80::1%25]", "[fe80::1%25]:3260"},
      {"[fe80::1%2],2001:db8::1,1", "[fe80::1%2]:3260 [2001:db8::1]:3260"},
  };
  for (const Case& one : cases) {
    std::string portals;
    for (const Portal& portal :
         parsed(std::string("iscsi://") + one.portals + "/iqn.a:b/1").portals) {
      portals += (portals.empty() ? "" : " ") + portal.to_string();
    }
    EXPECT_EQ(portals, one.understood) << one.portals;
  }
}

TEST(DiskUrl, RefusesPortalsThatAreNoneByName) {
  struct Case {
    const char* portals;
    const char* why;
  };
  const Case cases[] = {
      {"2001:db8::1:3260", "write [ADDRESS]:PORT"},
      {"1", "host is a number"},
      {"1,192.0.2.1", "host is a number"},
      {"192.0.2.1,1,2", "host is a number"},
      {"192.0.2.1,70000", "host is a number"},
      {"192.0.2.1:3260,,192.0.2.2", "no host name or address"},
      {"192.0.2.1%2", "credentials"},
      {"[fe80::1%]", "zone"},
      {"[fe80::1%25a/b]", "closing bracket"},
      {"[localhost]", "nothing else has brackets"},
      {"192.0.2.1,1,192.0.2.1:3260,2", "twice"},
      {"[2001:db8::1],2001:db8::1", "twice"},
  };
  for (const Case& one : cases) {
    EXPECT_THAT(refusal(std::string("iscsi://") + one.portals + "/iqn.a:b/1"), HasSubstr(one.why))
        << one.portals;
  }
}

TEST(DiskUrl, RefusesBrokenBrackets) {
  EXPECT_THAT(refusal("iscsi://[2001:db8::1/iqn.a:b/1"), HasSubstr("bracket"));
  EXPECT_THAT(refusal("iscsi://[]/iqn.a:b/1"), HasSubstr("brackets"));
  EXPECT_THAT(refusal("iscsi://[::1]x/iqn.a:b/1"), HasSubstr("PORT"));
}

TEST(DiskUrl, RefusesAPortalNamedTwice) {
  EXPECT_THAT(refusal("iscsi://h,h:3260/iqn.a:b/1"), HasSubstr("twice"));
}

TEST(DiskUrl, RefusesTooManyPortals) {
  std::string portals = "h0";
  for (int i = 1; i <= 32; ++i) {
    portals += ",h" + std::to_string(i);
  }
  EXPECT_THAT(refusal("iscsi://" + portals + "/iqn.a:b/1"), HasSubstr("more than 32"));
}

TEST(DiskUrl, RefusesAnUnknownSetting) {
  EXPECT_THAT(refusal("iscsi:a?no_path_rety=queue"), HasSubstr("unknown"));
}

TEST(DiskUrl, RefusesASettingTwice) {
  EXPECT_THAT(refusal("iscsi:a?rr_min_io=1&rr_min_io=2"), HasSubstr("twice"));
}

TEST(DiskUrl, RefusesASettingWithoutValue) {
  for (const char* query : {"", "rr_min_io", "&", "rr_min_io=1&"}) {
    EXPECT_THAT(refusal(std::string("iscsi:a?") + query), HasSubstr("key=value")) << query;
  }
}

TEST(DiskUrl, RefusesAnUnknownPathGroupingPolicy) {
  EXPECT_THAT(refusal("iscsi:a?path_grouping_policy=roundrobin"),
              HasSubstr("path_grouping_policy is none of failover, multibus"));
}

TEST(DiskUrl, RefusesAnUnknownPathSelector) {
  EXPECT_THAT(refusal("iscsi:a?path_selector=failover"),
              HasSubstr("path_selector is none of round-robin, queue-length"));
}

TEST(DiskUrl, MayBeShared) {
  EXPECT_FALSE(parsed("iscsi:a").settings.shared);
  EXPECT_EQ(parsed("iscsi:a?shared=yes").settings.shared, true);
  EXPECT_EQ(parsed("iscsi:a?shared=no").settings.shared, false);
  EXPECT_EQ(parsed("iscsi:a?shared=Yes").settings.shared, true) << "as in the configuration file";
  EXPECT_EQ(parsed("iscsi:a?shared=No").settings.shared, false);
  EXPECT_EQ(parsed("iscsi:a?shared=true").settings.shared, true);
  EXPECT_EQ(parsed("iscsi:a?shared=false").settings.shared, false);
  EXPECT_THAT(refusal("iscsi:a?shared=1"), HasSubstr("shared is neither yes nor no"));
}

TEST(DiskUrl, SectorsMayBeToldAs4KiB) {
  EXPECT_FALSE(parsed("iscsi:a").settings.sector_size);
  EXPECT_EQ(parsed("iscsi:a?sector_size=4096").settings.sector_size, 4096U);
  EXPECT_EQ(parsed("iscsi:a?sector_size=512").settings.sector_size, 512U);
  for (const char* wrong : {"", "0", "1024", "4k", "4096 ", "8192"}) {
    EXPECT_FALSE(parse_disk_url(std::string("iscsi:a?sector_size=") + wrong)) << wrong;
  }
  EXPECT_THAT(refusal("iscsi:a?sector_size=2048"),
              HasSubstr("sector_size is neither 512 nor 4096"));
}

TEST(DiskUrl, RefusesAnUnknownNoPathRetry) {
  EXPECT_THAT(refusal("iscsi:a?no_path_retry=forever"),
              HasSubstr("no_path_retry is neither queue, fail"));
}

TEST(DiskUrl, RefusesAPathCheckerWhichTheConfigurationFileHas) {
  EXPECT_THAT(refusal("iscsi:a?path_checker=tur"), HasSubstr("setting 1 behind '?' is unknown"));
}

TEST(DiskUrl, Wwid) {
  EXPECT_EQ(parsed("iscsi:a?wwid=36001405ABCdef0123456789abcdef012").settings.wwid,
            "36001405abcdef0123456789abcdef012");
  EXPECT_EQ(parsed("iscsi:a?wwid=1SIM%20DISK%201").settings.wwid, "1SIM DISK 1");
  EXPECT_EQ(parsed("iscsi:a?wwid=SSerial0").settings.wwid, "SSerial0");
  // As it is shown, with its backslashes as %5c or not, or the bytes themselves.
  for (const char* text : {"SA\\x1b\\xff\\x5c", "SA%5cx1b%5cxff%5cx5c", "SA\\x1B\\xFF\\",
                           "SA%1b%ff%5c", "SA%1B%FF\\"}) {
    EXPECT_EQ(parsed(std::string("iscsi:a?wwid=") + text).settings.wwid, "SA\\x1b\\xff\\x5c");
  }
  const std::string longest = "1" + printable_identity(std::string(255, '\x1b'));
  EXPECT_EQ(parse_wwid(longest).value_or(""), longest);
}

TEST(DiskUrl, RefusesAWwidThatIsNone) {
  for (const std::string wwid :
       {"", "3", "7abc", "36001405x", "1a%00", "1a\\x00", "3\\x41", "naa.6001405"}) {
    EXPECT_THAT(refusal("iscsi:a?wwid=" + wwid), HasSubstr("wwid is no identity of a LUN")) << wwid;
  }
  EXPECT_THAT(refusal("iscsi:a?wwid=3" + std::string(256, 'a')), HasSubstr("wwid is no identity"));
  EXPECT_THAT(refusal("iscsi:a?wwid=1" + std::string(1021, 'a')), HasSubstr("wwid is no identity"));
  EXPECT_THAT(refusal("iscsi:a?wwid=1a%"), HasSubstr("wwid has a '%'"));
}

TEST(DiskUrl, PrioAndFailback) {
  const DiskUrl iet = parsed("iscsi:a?prio_args=preferredip=192.0.2.7&failback=30&prio=iet");
  ASSERT_TRUE(iet.settings.prio);
  EXPECT_EQ(iet.settings.prio->kind, PrioritizerKind::preferred_portal);
  EXPECT_EQ(iet.settings.prio->preferred_ip, "192.0.2.7");
  EXPECT_EQ(iet.settings.failback, (Failback{Failback::Kind::after, 30s}));
  const DiskUrl weighted =
      parsed("iscsi:a?prio=weightedpath&prio_args=portal%20192.0.2.*%2050,target *:b 10");
  ASSERT_EQ(weighted.settings.prio->rules.size(), 2u);
  EXPECT_EQ(weighted.settings.prio->rules[0], parse_path_rule("portal 192.0.2.* 50", 100).value());
  EXPECT_EQ(weighted.settings.prio->rules[1], parse_path_rule("target *:b 10", 100).value());
  EXPECT_EQ(parsed("iscsi:a?prio=sysfs").settings.prio->kind, PrioritizerKind::alua);
}

TEST(DiskUrl, RefusesAnUnknownPrio) {
  EXPECT_THAT(refusal("iscsi:a?prio=ontap"), HasSubstr("prio is none of const, alua"));
}

TEST(DiskUrl, RefusesPrioArgumentsOfAnother) {
  EXPECT_EQ(refusal("iscsi:a?prio=iet&prio_args=exclusive_pref_bit"),
            "prio_args is nothing that prio iet knows: it takes one \"preferredip=ADDRESS\" with a "
            "numeric address");
  EXPECT_THAT(refusal("iscsi:a?prio=const&prio_args="), HasSubstr("it takes none"));
}

TEST(DiskUrl, RefusesPrioArgumentsWithABrokenEscape) {
  EXPECT_THAT(refusal("iscsi:a?prio=weightedpath&prio_args=portal%2"),
              HasSubstr("'%' without two hexadecimal digits"));
}

TEST(DiskUrl, RefusesPrioArgumentsWithoutPrio) {
  EXPECT_THAT(refusal("iscsi:a?prio_args=preferredip=192.0.2.7"), HasSubstr("needs a prio"));
}

TEST(DiskUrl, RefusesPrioTwice) {
  EXPECT_THAT(refusal("iscsi:a?prio=iet&prio=alua"), HasSubstr("prio is set twice"));
}

TEST(DiskUrl, RefusesAnUnknownFailback) {
  EXPECT_THAT(refusal("iscsi:a?failback=never"), HasSubstr("failback is neither immediate"));
}

TEST(DiskUrl, RefusesAUrlWithoutPortals) {
  EXPECT_THAT(refusal("iscsi:///iqn.2009-02.com.example:d/1"), HasSubstr("a portal has no host"));
}

TEST(DiskUrl, RefusesAnAliasThatIsNone) {
  for (const char* alias : {"", "/dev/sda", "a/b", "a b", "//"}) {
    EXPECT_FALSE(parse_disk_url(std::string("iscsi:") + alias)) << alias;
  }
  EXPECT_FALSE(parse_disk_url("iscsi:" + std::string(65, 'a')));
}

TEST(DiskUrl, RefusesWhatIsTooLong) {
  EXPECT_THAT(refusal("iscsi:" + std::string(3000, 'a')), HasSubstr("bytes"));
}

Portal portal(const std::string& host, const std::string& target_name = {}) {
  Portal result;
  result.host = host;
  result.target_name = target_name;
  return result;
}

// ---- arrays with a target name for each controller

TEST(DiskUrl, SeveralTargetNamesWithTheirPortals) {
  const DiskUrl target = parsed("iscsi://a,b:3261/iqn.x:a;c,[2001:db8::1]/iqn.x:b/7?shared=yes");
  EXPECT_EQ(target.target_name, "iqn.x:a");
  EXPECT_EQ(target.lun, 7);
  std::vector<Portal> portals = {portal("a"), portal("b"), portal("c", "iqn.x:b"),
                                 portal("2001:db8::1", "iqn.x:b")};
  portals[1].port = 3261;
  EXPECT_EQ(target.portals, portals);
  EXPECT_EQ(target.settings.shared, true);
}
TEST(DiskUrl, OnePortalOfTwoTargets) {
  const DiskUrl target = parsed("iscsi://a/iqn.x:a;a/iqn.x:b/0");
  EXPECT_EQ(target.portals, (std::vector{portal("a"), portal("a", "iqn.x:b")}));
}
TEST(DiskUrl, OneTargetWhoseNameIsRepeated) {
  const DiskUrl target = parsed("iscsi://a/iqn.x:a;b/iqn.x:a/0");
  EXPECT_EQ(target.portals, (std::vector{portal("a"), portal("b")}));
}
TEST(DiskUrl, SeveralTargetNamesWithoutPortals) {
  const DiskUrl target = parsed("iscsi:iqn.x:a;iqn.x:b;iqn.x:c/3");
  EXPECT_EQ(target.target_name, "iqn.x:a");
  EXPECT_EQ(target.other_target_names, (std::vector<std::string>{"iqn.x:b", "iqn.x:c"}));
  EXPECT_EQ(target.lun, 3);
}
TEST(DiskUrl, RefusesAPortalWithoutATargetNameOfItsOwn) {
  EXPECT_THAT(refusal("iscsi://a/iqn.x:a;b/0"), HasSubstr("a target name is missing"));
  EXPECT_THAT(refusal("iscsi://a;b/iqn.x:b/0"), HasSubstr("a target name is missing"));
}
TEST(DiskUrl, RefusesATargetNameWithoutPortals) {
  EXPECT_THAT(refusal("iscsi://a/iqn.x:a;/iqn.x:b/0"), HasSubstr("no host name"));
  EXPECT_THAT(refusal("iscsi://a/iqn.x:a;/0"), HasSubstr("no host name"));
}
TEST(DiskUrl, RefusesAPortalOfOneTargetTwice) {
  EXPECT_THAT(refusal("iscsi://a/iqn.x:a;b,a/iqn.x:a/0"), HasSubstr("named twice"));
}
TEST(DiskUrl, RefusesATargetNameTwiceOrNoneBehindTheSemicolon) {
  EXPECT_THAT(refusal("iscsi:iqn.x:a;iqn.x:a/0"), HasSubstr("given twice"));
  EXPECT_THAT(refusal("iscsi:iqn.x:a;/0"), HasSubstr("does not begin with iqn."));
  EXPECT_THAT(refusal("iscsi:iqn.x:a;data/0"), HasSubstr("does not begin with iqn."));
}
TEST(DiskUrl, RefusesTooManyTargetNames) {
  std::string url = "iscsi:iqn.x:0";
  std::string with_portals = "iscsi://h/iqn.x:0";
  for (int name = 1; name < 9; ++name) {
    url += ";iqn.x:" + std::to_string(name);
    with_portals += ";h/iqn.x:" + std::to_string(name);
  }
  EXPECT_THAT(refusal(url + "/0"), HasSubstr("more than 8 target names"));
  EXPECT_THAT(refusal(with_portals + "/0"), HasSubstr("more than 8 target names"));
}
TEST(DiskUrl, RefusesTooManyPortalsOfAllTargetsTogether) {
  std::string url = "iscsi:";
  for (int name = 0; name < 3; ++name) {
    url += name == 0 ? "//" : ";";
    for (int host = 0; host < 11; ++host) {
      url += (host == 0 ? "h" : ",h") + std::to_string(host);
    }
    url += "/iqn.x:" + std::to_string(name);
  }
  EXPECT_THAT(refusal(url + "/0"), HasSubstr("more than 32 portals"));
}

Configuration configuration() {
  Configuration result;
  result.initiator_name = "iqn.2026-01.test:host";
  result.session.noop_out_interval = 7s;
  result.multipath.polling_interval = 3s;
  ConfiguredLun lun;
  lun.alias = "data";
  lun.target_name = "iqn.2009-02.com.example:disk";
  lun.lun = 4;
  lun.portals = {Portal{"configured", 3260, {.name = "eth1"}}};
  lun.session = result.session;
  lun.multipath = result.multipath;
  lun.multipath.path_grouping_policy = PathGroupingPolicy::failover;
  result.luns["data"] = lun;
  return result;
}

TEST(DiskConfig, AliasComesFromTheConfiguration) {
  const auto config =
      configure_disk(parsed("iscsi:data?no_path_retry=10"), configuration(), "xvda", true);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->target_name, "iqn.2009-02.com.example:disk");
  EXPECT_EQ(config->session.target_name, "iqn.2009-02.com.example:disk");
  EXPECT_EQ(config->session.initiator_name, "iqn.2026-01.test:host");
  EXPECT_EQ(config->lun, 4);
  ASSERT_EQ(config->portals.size(), 1u);
  EXPECT_EQ(config->portals[0].host, "configured");
  EXPECT_EQ(config->multipath.alias, "data");
  EXPECT_EQ(config->multipath.path_grouping_policy, PathGroupingPolicy::failover);
  EXPECT_EQ(config->multipath.no_path_retry, 30s);  // 10 checks, 3 s apart
  EXPECT_TRUE(config->multipath.read_only);
}

TEST(DiskConfig, RefusesAnUnknownAlias) {
  const auto config = configure_disk(parsed("iscsi:nope"), configuration(), "xvda", false);
  ASSERT_FALSE(config);
  EXPECT_THAT(config.error().message, HasSubstr("nope"));
}

TEST(DiskConfig, AConfiguredLunKeepsItsSettingsWhenNamedInFull) {
  const auto config = configure_disk(parsed("iscsi://h/iqn.2009-02.com.example:disk/4"),
                                     configuration(), "xvda", false);
  ASSERT_TRUE(config);
  EXPECT_EQ(config->multipath.alias, "data");
  EXPECT_EQ(config->portals[0].host, "h");
}

struct AliasedLine {
  const char* line;
  const char* refusal;  // part of it; empty: it is not refused
};

// Which of them is meant would be a matter of their names.
TEST(DiskConfig, RefusesALunThatHasTwoAliasesWithPathsOfTheirOwnUnlessOneIsSaid) {
  constexpr const char* kSayWhich =
      "the configuration file has LUN 4 of iqn.2009-02.com.example:disk as data and as other, by "
      "other portals or interfaces: write iscsi:data or iscsi:other as the target";
  Configuration with = configuration();
  ConfiguredLun& other = with.luns["other"] = with.luns["data"];
  other.alias = "other";
  const char* const kByName = "iscsi:iqn.2009-02.com.example:disk/4";
  const char* const kWithPortals = "iscsi://h/iqn.2009-02.com.example:disk/4";
  const auto expect = [&](std::initializer_list<AliasedLine> lines) {
    for (const AliasedLine& line : lines) {
      const auto config = configure_disk(parsed(line.line), with, "xvda", false);
      EXPECT_EQ(config ? "" : config.error().message, line.refusal) << line.line;
    }
  };
  expect({{kByName, ""}, {kWithPortals, ""}, {"iscsi:data", ""}, {"iscsi:other", ""}});
  other.portals = {portal("elsewhere")};
  expect({{kByName, kSayWhich}, {kWithPortals, ""}, {"iscsi:data", ""}, {"iscsi:other", ""}});
  other.paths.interfaces = {{.name = "eth2"}};
  expect({{kByName, kSayWhich}, {kWithPortals, kSayWhich}, {"iscsi:other", ""}});
  other = with.luns["data"];
  other.alias = "other";
  other.other_target_names = {"iqn.a:two"};
  expect({{kByName, kSayWhich}, {kWithPortals, ""}, {"iscsi:iqn.a:two/4", ""}});
  other.lun = 5;
  expect({{kByName, ""}, {"iscsi:iqn.2009-02.com.example:disk/5", ""}, {kWithPortals, ""}});
}

TEST(DiskConfig, RefusesATargetWithoutAnyPortal) {
  const auto config = configure_disk(parsed("iscsi:iqn.a:b/1"), configuration(), "xvda", false);
  ASSERT_FALSE(config);
  EXPECT_THAT(config.error().message, HasSubstr("no portal is known"));
}

TEST(DiskConfig, RefusesAnAliasWithoutAnyPortal) {
  Configuration without = configuration();
  without.luns["data"].portals.clear();
  const auto config = configure_disk(parsed("iscsi:data"), without, "xvda", false);
  ASSERT_FALSE(config);
  EXPECT_THAT(config.error().message,
              HasSubstr("no portal is known for iqn.2009-02.com.example:disk: name portals in the "
                        "disk's target or in the configuration file"));
}

TEST(DiskConfig, RefusesAPathSelectorThatContradictsTheConfiguration) {
  Configuration with = configuration();
  with.luns["data"].multipath.rr_weight = RrWeight::priorities;
  EXPECT_TRUE(configure_disk(parsed("iscsi:data"), with, "xvda", false));
  const auto config =
      configure_disk(parsed("iscsi:data?path_selector=queue-length"), with, "xvda", false);
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().message,
            "rr_weight priorities is for path_selector round-robin, not queue-length (rr_weight "
            "comes from the configuration file, path_selector from the disk's target)");
}

TEST(DiskConfig, RefusesAPathGroupingPolicyThatContradictsTheConfiguration) {
  Configuration with = configuration();
  with.luns["data"].multipath.prio = Prioritizer{};
  const auto config =
      configure_disk(parsed("iscsi:data?path_grouping_policy=group_by_prio"), with, "xvda", false);
  ASSERT_FALSE(config);
  EXPECT_THAT(config.error().message,
              AllOf(HasSubstr("group_by_prio contradicts prio const"),
                    HasSubstr("path_grouping_policy comes from the disk's target, prio from the "
                              "configuration file")));
}

TEST(DiskConfig, SectorSizeInTheDiskLineCountsMoreThanTheConfiguration) {
  Configuration with = configuration();
  with.luns["data"].sector_size = 4096;
  const auto size_of = [&](const char* params) {
    return configure_disk(parsed(params), with, "xvda", false)->sector_size;
  };
  EXPECT_EQ(size_of("iscsi:data"), 4096U);
  EXPECT_EQ(size_of("iscsi:data?sector_size=512"), 512U);
  EXPECT_EQ(size_of("iscsi://h/iqn.a:b/9?sector_size=4096"), 4096U);
}

TEST(DiskConfig, SharedInTheDiskLineCountsMoreThanTheConfiguration) {
  Configuration with = configuration();
  for (const bool configured : {false, true}) {
    with.luns["data"].multipath.shared = configured;
    const auto is_shared = [&](const char* params) {
      return configure_disk(parsed(params), with, "xvda", false)->multipath.shared;
    };
    EXPECT_EQ(is_shared("iscsi:data"), configured);
    EXPECT_TRUE(is_shared("iscsi:data?shared=yes"));
    EXPECT_FALSE(is_shared("iscsi:data?shared=no"));
  }
}

TEST(DiskConfig, TheWwidOfTheDiskLineCountsMoreThanTheConfiguration) {
  Configuration with = configuration();
  with.luns["data"].multipath.wwid = "3600140500000000a";
  EXPECT_EQ(configure_disk(parsed("iscsi:data"), with, "xvda", false)->multipath.wwid,
            "3600140500000000a");
  EXPECT_EQ(configure_disk(parsed("iscsi:data?wwid=3600140500000000b"), with, "xvda", false)
                ->multipath.wwid,
            "3600140500000000b");
}

TEST(DiskConfig, PrioAndFailbackOfTheDiskLineCountMoreThanTheConfiguration) {
  Configuration with = configuration();
  with.luns["data"].multipath.prio = Prioritizer{};
  const auto config = configure_disk(
      parsed("iscsi:data?prio=alua&failback=manual&path_grouping_policy=group_by_prio"), with,
      "xvda", false);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->multipath.prio->kind, PrioritizerKind::alua);
  EXPECT_EQ(config->multipath.failback, Failback{});
}

class FakeDirectory final : public PortalResolver {
 public:
  Result<std::vector<SocketAddress>> resolve(const Portal& portal) override {
    const auto found = addresses.find(portal.host);
    if (found == addresses.end()) {
      return fail(ErrorCode::not_found, "host " + portal.host + " is unknown");
    }
    std::vector<SocketAddress> told;
    std::istringstream words(found->second);
    for (std::string word; words >> word;) {
      told.push_back(SocketAddress::parse(word, portal.port).value());
    }
    return told;
  }
  Result<std::vector<Portal>> discover(const Portal& at, const SessionOptions& session,
                                       const std::string& target_name) override {
    EXPECT_EQ(session.initiator_name, "iqn.2026-01.test:host");
    if (target_name == "iqn.a:other") {
      const auto found = other_portals.find(at.host);
      return found == other_portals.end() ? std::vector<Portal>() : found->second;
    }
    EXPECT_EQ(target_name, "iqn.a:b");
    const auto found = portals.find(at.host);
    if (found == portals.end()) {
      return fail(ErrorCode::unavailable, "portal " + at.host + " does not answer");
    }
    return found->second;
  }

  std::map<std::string, std::string> addresses;
  std::map<std::string, std::vector<Portal>> portals;
  std::map<std::string, std::vector<Portal>> other_portals;  // of iqn.a:other
};

TEST(ResolveDisk, AHostNameIsOnePathWithAllItsAddresses) {
  FakeDirectory directory;
  directory.addresses["san"] = "2001:db8::1 192.0.2.1 192.0.2.2";
  const auto config =
      configure_disk(parsed("iscsi://san,192.0.2.9/iqn.a:b/1"), configuration(), "xvda", false);
  const auto disk = resolve_disk(config.value(), directory);
  ASSERT_TRUE(disk) << disk.error().message;
  const auto& portals = disk->specification.portals;
  ASSERT_EQ(portals.size(), 2u);
  EXPECT_EQ(portals[0].address.to_string(), "[2001:db8::1]:3260");
  ASSERT_EQ(portals[0].other_addresses.size(), 2u);
  EXPECT_EQ(portals[0].other_addresses[1].to_string(), "192.0.2.2:3260");
  EXPECT_TRUE(portals[1].other_addresses.empty());
  // The next answer has them in another order.
  directory.addresses["san"] = "192.0.2.2 2001:db8::1 192.0.2.1";
  EXPECT_TRUE(
      same_path(portals[0], resolve_disk(config.value(), directory)->specification.portals[0]));
}

TEST(ResolveDisk, UsesThePortalsThatCanBeResolved) {
  FakeDirectory directory;
  directory.addresses["one"] = "192.0.2.1";
  const auto config =
      configure_disk(parsed("iscsi://one,two/iqn.a:b/1"), configuration(), "xvda", false);
  const auto disk = resolve_disk(config.value(), directory);
  ASSERT_TRUE(disk) << disk.error().message;
  ASSERT_EQ(disk->specification.portals.size(), 1u);
  EXPECT_EQ(disk->specification.portals[0].address.to_string(), "192.0.2.1:3260");
  EXPECT_EQ(disk->specification.lun, 1);
  EXPECT_EQ(disk->trouble, "host two is unknown");
}

TEST(ResolveDisk, TwoNamesOfOneAddressAreOnePath) {
  FakeDirectory directory;
  directory.addresses["one"] = directory.addresses["two"] = "192.0.2.1";
  const auto config =
      configure_disk(parsed("iscsi://one,two/iqn.a:b/1"), configuration(), "xvda", false);
  EXPECT_EQ(resolve_disk(config.value(), directory)->specification.portals.size(), 1u);
}

TEST(ResolveDisk, UnknownHost) {
  FakeDirectory directory;
  const auto config =
      configure_disk(parsed("iscsi://one,two/iqn.a:b/1"), configuration(), "xvda", false);
  const auto disk = resolve_disk(config.value(), directory);
  ASSERT_FALSE(disk);
  EXPECT_EQ(disk.error().message, "host one is unknown; host two is unknown");
}

std::vector<std::string> paths_of(const Result<ResolvedDisk>& disk) {
  std::vector<std::string> paths;
  for (const ResolvedPortal& path : disk->specification.portals) {
    paths.push_back(path.address.to_string() + " " + path.portal.interface_binding.to_string() +
                    " " + std::to_string(path.session_number));
  }
  return paths;
}

TEST(ResolveDisk, TwoInterfacesMakeTwoPathsToEachPortal) {
  FakeDirectory directory;
  directory.addresses["one"] = "192.0.2.1";
  directory.addresses["two"] = "192.0.2.2";
  Configuration with_interfaces = configuration();
  with_interfaces.paths.interfaces = {{.name = "eth1"}, {.hardware_address = "52:54:00:12:34:56"}};
  const auto config =
      configure_disk(parsed("iscsi://one,two/iqn.a:b/1"), with_interfaces, "xvda", false);
  EXPECT_THAT(paths_of(resolve_disk(config.value(), directory)),
              ElementsAre("192.0.2.1:3260 eth1 0", "192.0.2.1:3260 52:54:00:12:34:56 0",
                          "192.0.2.2:3260 eth1 0", "192.0.2.2:3260 52:54:00:12:34:56 0"));
}

TEST(ResolveDisk, APortalWithItsOwnInterfaceKeepsIt) {
  FakeDirectory directory;
  directory.addresses["configured"] = "192.0.2.1";
  Configuration with_interfaces = configuration();
  with_interfaces.luns["data"].paths.interfaces = {{.name = "eth7"}};
  const auto config = configure_disk(parsed("iscsi:data"), with_interfaces, "xvda", false);
  EXPECT_THAT(paths_of(resolve_disk(config.value(), directory)),
              ElementsAre("192.0.2.1:3260 eth1 0"));
}

TEST(ResolveDisk, SeveralSessionsMakeSeveralPathsToAPortal) {
  FakeDirectory directory;
  directory.addresses["one"] = "192.0.2.1";
  Configuration with_sessions = configuration();
  with_sessions.paths.sessions_per_portal = 3;
  const auto config = configure_disk(parsed("iscsi://one/iqn.a:b/1"), with_sessions, "xvda", false);
  EXPECT_THAT(paths_of(resolve_disk(config.value(), directory)),
              ElementsAre("192.0.2.1:3260  0", "192.0.2.1:3260  1", "192.0.2.1:3260  2"));
}

TEST(ResolveDisk, MakesNoMorePathsThanADiskCanHave) {
  FakeDirectory directory;
  std::string portals;
  for (int i = 0; i < 16; ++i) {
    const std::string host = "h" + std::to_string(i);
    directory.addresses[host] = "192.0.2." + std::to_string(i + 1);
    portals += (i == 0 ? "" : ",") + host;
  }
  Configuration with_sessions = configuration();
  with_sessions.paths.sessions_per_portal = 8;
  const auto config =
      configure_disk(parsed("iscsi://" + portals + "/iqn.a:b/1"), with_sessions, "xvda", false);
  const auto disk = resolve_disk(config.value(), directory);
  EXPECT_EQ(disk->specification.portals.size(), kMaxPathsPerDisk);
  EXPECT_THAT(disk->trouble, HasSubstr("no more are made"));
}

TEST(DiskConfig, ATargetOfTheConfigurationHasItsSettings) {
  Configuration with_target = configuration();
  ConfiguredTarget& whole = with_target.targets["iqn.a:b"];
  whole.session.chap.username = "host1";
  whole.paths.sessions_per_portal = 2;
  const auto config = configure_disk(parsed("iscsi://h/iqn.a:b/1"), with_target, "xvda", false);
  ASSERT_TRUE(config);
  EXPECT_EQ(config->session.chap.username, "host1");
  EXPECT_EQ(config->paths.sessions_per_portal, 2);
  EXPECT_EQ(config->multipath.alias, "xvda");
  EXPECT_EQ(config->session.initiator_name, "iqn.2026-01.test:host");
  EXPECT_FALSE(configure_disk(parsed("iscsi://h/iqn.a:c/1"), with_target, "xvda", false)
                   ->session.chap.enabled());
}

TEST(ResolveDisk, DiscoveryAsksEveryPortalAndTakesEachPortalOnce) {
  Configuration with_discovery = configuration();
  with_discovery.discovery_portals = {portal("dead"), portal("a"), portal("b")};
  FakeDirectory directory;
  directory.portals["a"] = {portal("192.0.2.1"), portal("192.0.2.2")};
  directory.portals["b"] = {portal("192.0.2.2"), portal("192.0.2.3")};
  for (const char* address : {"192.0.2.1", "192.0.2.2", "192.0.2.3"}) {
    directory.addresses[address] = address;
  }
  const auto config = configure_disk(parsed("iscsi:iqn.a:b/1"), with_discovery, "xvda", false);
  ASSERT_TRUE(config);
  const auto disk = resolve_disk(*config, directory);
  ASSERT_TRUE(disk);
  EXPECT_EQ(disk->specification.portals.size(), 3u);
  EXPECT_EQ(disk->trouble, "portal dead does not answer");
}

std::vector<std::string> targets_of(const Result<ResolvedDisk>& disk) {
  std::vector<std::string> paths;
  for (const ResolvedPortal& path : disk->specification.portals) {
    paths.push_back(path.address.to_string() + " " + path.target_name);
  }
  return paths;
}

TEST(ResolveDisk, EachPortalLeadsToItsTarget) {
  FakeDirectory directory;
  directory.addresses["one"] = "192.0.2.1";
  directory.addresses["two"] = "192.0.2.2";
  const auto config = configure_disk(parsed("iscsi://one/iqn.a:b;one,two/iqn.a:other/1"),
                                     configuration(), "xvda", false);
  EXPECT_EQ(targets_of(resolve_disk(config.value(), directory)),
            (std::vector<std::string>{"192.0.2.1:3260 iqn.a:b", "192.0.2.1:3260 iqn.a:other",
                                      "192.0.2.2:3260 iqn.a:other"}));
}

TEST(ResolveDisk, DiscoveryAsksForEveryTargetName) {
  Configuration with_discovery = configuration();
  with_discovery.discovery_portals = {portal("a"), portal("b")};
  FakeDirectory directory;
  directory.portals["a"] = directory.portals["b"] = {portal("192.0.2.1")};
  directory.other_portals["b"] = {portal("192.0.2.1"), portal("192.0.2.2")};
  for (const char* address : {"192.0.2.1", "192.0.2.2"}) {
    directory.addresses[address] = address;
  }
  const auto config =
      configure_disk(parsed("iscsi:iqn.a:b;iqn.a:other/1"), with_discovery, "xvda", false);
  ASSERT_TRUE(config);
  const auto disk = resolve_disk(*config, directory);
  ASSERT_TRUE(disk);
  EXPECT_EQ(targets_of(disk),
            (std::vector<std::string>{"192.0.2.1:3260 iqn.a:b", "192.0.2.1:3260 iqn.a:other",
                                      "192.0.2.2:3260 iqn.a:other"}));
  EXPECT_EQ(disk->trouble, "");
}

// Some targets compare the bytes of their name.
TEST(ResolveDisk, ATargetIsCalledAsDiscoveryTellsIt) {
  Configuration with_discovery = configuration();
  with_discovery.discovery_portals = {portal("a"), portal("b")};
  FakeDirectory directory;
  directory.portals["a"] = {portal("192.0.2.1", "iqn.a:B"), portal("192.0.2.2", "iqn.a:B")};
  directory.portals["b"] = {portal("192.0.2.2"), portal("192.0.2.3")};
  const auto config = configure_disk(parsed("iscsi:iqn.a:b/1"), with_discovery, "xvda", false);
  const auto disk = resolve_disk(config.value(), directory);
  ASSERT_TRUE(disk);
  EXPECT_EQ(targets_of(disk),
            (std::vector<std::string>{"192.0.2.1:3260 iqn.a:B", "192.0.2.2:3260 iqn.a:B",
                                      "192.0.2.3:3260 iqn.a:b"}));
  EXPECT_EQ(disk->trouble, "");
}

TEST(ResolveDisk, ATargetNameThatDiscoveryDoesNotTellIsTrouble) {
  Configuration with_discovery = configuration();
  with_discovery.discovery_portals = {portal("a")};
  FakeDirectory directory;
  directory.portals["a"] = {portal("192.0.2.1")};
  directory.addresses["192.0.2.1"] = "192.0.2.1";
  const auto config =
      configure_disk(parsed("iscsi:iqn.a:b;iqn.a:other/1"), with_discovery, "xvda", false);
  const auto disk = resolve_disk(config.value(), directory);
  ASSERT_TRUE(disk);
  EXPECT_EQ(disk->specification.portals.size(), 1U);
  EXPECT_EQ(disk->trouble, "no discovery portal tells of iqn.a:other");
}

TEST(DiskConfig, ALunOfSeveralTargetsIsKnownByEachOfItsNames) {
  Configuration several = configuration();
  ConfiguredLun& lun = several.luns["data"];
  lun.portals = {portal("one"), portal("two", "iqn.a:two")};
  const auto config = configure_disk(parsed("iscsi://h/iqn.a:two/4"), several, "xvda", false);
  ASSERT_TRUE(config);
  EXPECT_EQ(config->multipath.alias, "data");
  EXPECT_EQ(config->portals, std::vector{portal("h", "iqn.a:two")})
      << "the portal of the disk line is that of the name in the disk line";
}

// Names of one LUN, of which the configuration knows some.
struct NamedLine {
  const char* what;
  const char* line;
  std::vector<std::string> names;  // of the config; none: it is refused
  std::vector<Portal> portals;
  const char* alias = "data";
};

std::vector<std::string> names_of(const DiskConfig& config) {
  std::vector<std::string> names{config.target_name};
  names.insert(names.end(), config.other_target_names.begin(), config.other_target_names.end());
  return names;
}

void expect_planned(const Configuration& with, const NamedLine& line) {
  const auto parsed_line = parse_disk_url(line.line);
  const auto config = parsed_line ? configure_disk(*parsed_line, with, "xvda", false)
                                  : Result<DiskConfig>(tl::unexpected(parsed_line.error()));
  EXPECT_EQ(config.has_value(), !line.names.empty()) << line.what;
  if (config && !line.names.empty()) {
    EXPECT_EQ(names_of(*config), line.names) << line.what;
    EXPECT_EQ(config->portals, line.portals) << line.what;
    EXPECT_EQ(config->multipath.alias, line.alias) << line.what;
    EXPECT_EQ(config->session.target_name, config->target_name) << line.what;
  }
}

TEST(DiskConfig, ALunOfSeveralNamesIsTheConfiguredOneWhicheverAreWritten) {
  Configuration with = configuration();
  with.discovery_portals = {portal("san")};
  ConfiguredLun& lun = with.luns["data"];
  lun.target_name = "iqn.a:one";
  lun.other_target_names = {"iqn.a:two"};
  lun.portals = {};
  const std::vector<std::string> both = {"iqn.a:one", "iqn.a:two"};
  const std::vector<std::string> three = {"iqn.a:one", "iqn.a:two", "iqn.a:three"};
  const NamedLine kLines[] = {
      {"by its alias", "iscsi:data", both, {}},
      {"the first", "iscsi:iqn.a:one/4", both, {}},
      {"the second", "iscsi:iqn.a:two/4", both, {}},
      {"both", "iscsi:iqn.a:one;iqn.a:two/4", both, {}},
      {"both, the other way round", "iscsi:iqn.a:two;iqn.a:one/4", both, {}},
      {"one more", "iscsi:iqn.a:one;iqn.a:three/4", three, {}},
      {"one more, first", "iscsi:iqn.a:three;iqn.a:one/4", three, {}},
      {"one more, before the second", "iscsi:iqn.a:three;iqn.a:two/4", three, {}},
      {"one more, between", "iscsi:iqn.a:two;iqn.a:three;iqn.a:one/4", three, {}},
      {"in capital letters", "iscsi:IQN.A:ONE/4", both, {}},
      {"the second in capital letters", "iscsi:iqn.A:Two/4", both, {}},
      {"another LUN", "iscsi:iqn.a:two;iqn.a:one/5", {"iqn.a:two", "iqn.a:one"}, {}, "xvda"},
      {"another name", "iscsi:iqn.a:three/4", {"iqn.a:three"}, {}, "xvda"},
      {"twice", "iscsi:iqn.a:one;iqn.a:one/4", {}, {}},
      {"twice, in other letters", "iscsi:iqn.a:one;IQN.a:One/4", {}, {}},
      {"the third twice", "iscsi:iqn.a:one;iqn.a:two;iqn.a:TWO/4", {}, {}},
      {"portals of the first", "iscsi://h/iqn.a:one/4", both, {portal("h")}},
      {"portals of the second", "iscsi://h/iqn.a:two/4", both, {portal("h", "iqn.a:two")}},
      {"portals of both",
       "iscsi://h/iqn.a:one;i/iqn.a:two/4",
       both,
       {portal("h"), portal("i", "iqn.a:two")}},
      {"portals of both, the other way round",
       "iscsi://h/iqn.a:two;i/iqn.a:one/4",
       both,
       {portal("h", "iqn.a:two"), portal("i", "iqn.a:one")}},
      {"portals of one more",
       "iscsi://h/iqn.a:three;i/iqn.a:one/4",
       both,
       {portal("h", "iqn.a:three"), portal("i", "iqn.a:one")}},
      {"portals of one more, behind",
       "iscsi://i/iqn.a:two;h/iqn.a:three/4",
       both,
       {portal("i", "iqn.a:two"), portal("h", "iqn.a:three")}},
      {"one portal of both",
       "iscsi://h/iqn.a:one;h/iqn.a:two/4",
       both,
       {portal("h"), portal("h", "iqn.a:two")}},
      {"several portals of each",
       "iscsi://h,i/iqn.a:one;j,k:3261/iqn.a:two/4",
       both,
       {portal("h"), portal("i"), portal("j", "iqn.a:two"),
        [] {
          Portal k = portal("k", "iqn.a:two");
          k.port = 3261;
          return k;
        }()}},
      {"a portal twice, of a name in other letters", "iscsi://h/iqn.a:one;h/iqn.a:ONE/4", {}, {}},
      {"two portals of a name in other letters",
       "iscsi://h/iqn.a:one;i/iqn.a:ONE/4",
       both,
       {portal("h"), portal("i")}},
      {"a portal twice, in other letters", "iscsi://h,H/iqn.a:one/4", {}, {}},
  };
  for (const NamedLine& line : kLines) {
    expect_planned(with, line);
  }
  // Where its portals are configured, those of a name that it has not are unknown.
  lun.portals = {portal("p"), portal("q", "iqn.a:two")};
  lun.other_target_names = {};
  const std::vector<std::string> first = {"iqn.a:one"};
  const NamedLine kWithPortals[] = {
      {"the first", "iscsi:iqn.a:one/4", first, lun.portals},
      {"the second", "iscsi:iqn.a:two/4", first, lun.portals},
      {"both", "iscsi:iqn.a:two;iqn.a:one/4", first, lun.portals},
      {"the second in capital letters", "iscsi:IQN.A:TWO/4", first, lun.portals},
      {"one more", "iscsi:iqn.a:one;iqn.a:three/4", {}, {}},
      {"one more, first", "iscsi:iqn.a:three;iqn.a:one/4", {}, {}},
      {"portals of the line",
       "iscsi://h/iqn.a:three;i/iqn.a:two/4",
       first,
       {portal("h", "iqn.a:three"), portal("i", "iqn.a:two")}},
  };
  for (const NamedLine& line : kWithPortals) {
    expect_planned(with, line);
  }
}

TEST(DiskConfig, TheOptionsOfATargetAreThoseOfItsNameInWhateverLetters) {
  Configuration with = configuration();
  with.discovery_portals = {portal("san")};
  ConfiguredTarget& of_target = with.targets["iqn.a:One"];
  of_target.session = with.session;
  of_target.session.chap.username = "host";
  of_target.session.chap.password = "initiator-secret";
  of_target.multipath = with.multipath;
  for (const char* line : {"iscsi:iqn.a:One/1", "iscsi:iqn.a:one/1", "iscsi:IQN.A:ONE/1",
                           "iscsi://h/iqn.a:ONE/1", "iscsi:iqn.a:one;iqn.a:two/1"}) {
    const auto config = configure_disk(parsed(line), with, "xvda", false);
    ASSERT_TRUE(config) << line;
    EXPECT_EQ(config->session.chap.username, "host") << line;
    EXPECT_EQ(config->session_variant, 0U) << line;
  }
  for (const char* line : {"iscsi:iqn.a:two;iqn.a:one/1", "iscsi:iqn.a:one1/1"}) {
    EXPECT_FALSE(configure_disk(parsed(line), with, "xvda", false)->session.chap.enabled()) << line;
  }
}

TEST(ResolveDisk, TargetThatDiscoveryDoesNotTell) {
  Configuration with_discovery = configuration();
  with_discovery.discovery_portals = {portal("a")};
  FakeDirectory directory;
  directory.portals["a"] = {};
  const auto config = configure_disk(parsed("iscsi:iqn.a:b/1"), with_discovery, "xvda", false);
  const auto disk = resolve_disk(config.value(), directory);
  ASSERT_FALSE(disk);
  EXPECT_EQ(disk.error().message, "no discovery portal tells of iqn.a:b");
}

}  // namespace
}  // namespace iscsi_blkback
