// Refusals of the configuration file by name, each with file and line: what is no such file, and
// settings of sessions, targets, LUNs and portals.
#include "tests/tools/config_text.h"

namespace iscsi_blkback {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

// --- Refusals

TEST(ConfigRefuses, BrokenToml) {
  EXPECT_THAT(refusal("[defaults]\nrr_min_io = \n"), StartsWith("c.toml:2: "));
}

TEST(ConfigRefuses, SectionThatIsNotClosed) {
  EXPECT_THAT(refusal("[\nlog_level = 'info'\n"), StartsWith("c.toml:"));
  EXPECT_THAT(refusal("[defaults\n"), StartsWith("c.toml:"));
  EXPECT_THAT(refusal("["), StartsWith("c.toml:"));
}

TEST(ConfigRefuses, LineTooLong) {
  std::string parts = "[defaults]\na";
  while (parts.size() < 200000) {
    parts += ".a";
  }
  EXPECT_EQ(refusal(parts + " = 1\n"), "c.toml:2: the line has more than 1024 bytes");
}

TEST(ConfigRefuses, CharactersBeyondAscii) {
  EXPECT_EQ(refusal("# gr\xc3\xbc\xc3\x9f\n\nlog_level = 'gr\xc3\xbc\xc3\x9f'\n"),
            "c.toml:3: characters beyond ASCII may only stand in lines that begin with #");
  EXPECT_THAT(refusal("\xcc\x8c = 1\n"), StartsWith("c.toml:1: characters beyond ASCII"));
}

TEST(ConfigRefuses, KeyTwice) {
  EXPECT_THAT(refusal("log_level='info'\nlog_level='info'\n"), StartsWith("c.toml:2: "));
}

TEST(ConfigRefuses, UnknownTopOption) {
  EXPECT_EQ(refusal("\ninitiatorname = 'x'\n"),
            "c.toml:2: initiatorname is not an option of this file; did you mean initiator_name?");
}

TEST(ConfigRefuses, UnknownSection) {
  EXPECT_EQ(refusal("[default]\nrr_min_io = 1\n"),
            "c.toml:1: default is not an option of this file; did you mean defaults?");
}

TEST(ConfigRefuses, UnknownDefault) {
  EXPECT_EQ(refusal("[defaults]\n\nno_such_thing = 5\n"),
            "c.toml:3: no_such_thing is not an option of [defaults]");
}

TEST(ConfigRefuses, MisspeltDefault) {
  EXPECT_EQ(refusal("[defaults]\nno-path_rety = 'queue'\n"),
            "c.toml:2: no-path_rety is not an option of [defaults]; did you mean no_path_retry?");
  EXPECT_THAT(refusal("[defaults]\ninitialr2t = 'No'\n"), HasSubstr("did you mean InitialR2T?"));
}

TEST(ConfigRefuses, UnknownLongName) {
  EXPECT_EQ(refusal("[defaults]\nnode.session.auth.user = 'me'\n"),
            "c.toml:2: node.session.auth.user is not an option of [defaults]");
}

TEST(ConfigRefuses, SecretThatIsTooShort) {
  const std::string message = refusal("[defaults]\nusername = 'a'\npassword = 'tooshort'\n");
  EXPECT_THAT(message, StartsWith("c.toml:3: node.session.auth: password must have 12"));
  EXPECT_THAT(message, testing::Not(HasSubstr("tooshort")));
}

TEST(ConfigRefuses, OneSecretForBothDirections) {
  EXPECT_THAT(refusal(kChap + "username_in = 'array'\npassword_in = 'initiator-secret'\n"),
              testing::AllOf(StartsWith("c.toml:6: "), HasSubstr("must not be the same"),
                             testing::Not(HasSubstr("initiator-secret"))));
}

TEST(ConfigRefuses, SecretThatIsNoString) {
  EXPECT_EQ(refusal("[defaults]\npassword = 123456789012\n"),
            "c.toml:2: password must be a string, not a whole number");
}

TEST(ConfigRefuses, ChapWithoutAName) {
  EXPECT_THAT(refusal("[defaults]\nauthmethod = 'CHAP'\n"),
              StartsWith("c.toml:2: node.session.auth: CHAP needs a username"));
  EXPECT_THAT(refusal("[defaults]\npassword = 'initiator-secret'\n"), HasSubstr("CHAP needs"));
}

TEST(ConfigRefuses, UnknownAuthmethod) {
  EXPECT_EQ(refusal("[defaults]\nauthmethod = 'SRP'\n"),
            "c.toml:2: authmethod must be \"None\" or \"CHAP\"");
}

TEST(ConfigRefuses, UnknownChapAlgorithm) {
  for (const char* list : {"MD4", "", "SHA256,", "MD5,MD5"}) {
    EXPECT_THAT(refusal(std::string("[defaults]\nchap_algs = '") + list + "'\n"),
                StartsWith("c.toml:2: chap_algs must be a list"));
  }
}

TEST(ConfigRefuses, DiscoveryWithoutMd5) {
  EXPECT_THAT(refusal("[defaults]\n"
                      "discovery.sendtargets.auth.username = 'finder'\n"
                      "discovery.sendtargets.auth.password = 'discovery-secret'\n"
                      "discovery.sendtargets.auth.chap_algs = 'SHA256'\n"),
              StartsWith("c.toml:4: discovery.sendtargets.auth: discovery knows MD5 only"));
}

TEST(ConfigRefuses, UnknownDigest) {
  EXPECT_THAT(refusal("[defaults]\nHeaderDigest = 'CRC32'\n"),
              StartsWith("c.toml:2: HeaderDigest must be \"None\""));
}

TEST(ConfigRefuses, OtherValuesOfKeysWithOneValue) {
  EXPECT_EQ(refusal("[defaults]\nErrorRecoveryLevel = 2\n"),
            "c.toml:2: ErrorRecoveryLevel can only be 0: a lost connection is replaced by a new "
            "session");
  EXPECT_THAT(refusal("[defaults]\nMaxConnections = 2\n"), HasSubstr("nr_sessions"));
  EXPECT_THAT(refusal("[defaults]\nDataPDUInOrder = 'No'\n"), HasSubstr("can only be Yes"));
}

TEST(ConfigRefuses, AliasWithControlCharacters) {
  EXPECT_THAT(refusal("[defaults]\nInitiatorAlias = \"a\\nb\"\n"), HasSubstr("control character"));
}

TEST(ConfigRefuses, BothWaysToNameInterfaces) {
  EXPECT_EQ(refusal("[defaults]\ninterfaces = ['eth1']\niface.ipaddress = '192.0.2.1'\n"),
            "c.toml:3: either interfaces or iface.ipaddress may be set, not both");
}

TEST(ConfigRefuses, WhatIsNoInterface) {
  EXPECT_THAT(refusal("[defaults]\niface.ipaddress = 'host'\n"), HasSubstr("numeric IPv4"));
  EXPECT_THAT(refusal("[defaults]\niface.hwaddress = '52:54'\n"), HasSubstr("hardware address"));
  EXPECT_THAT(refusal("[defaults]\niface.net_ifacename = 'a b'\n"), HasSubstr("network interface"));
  EXPECT_THAT(refusal("[defaults]\ninterfaces = []\n"), HasSubstr("names no interface"));
  EXPECT_THAT(refusal("[defaults]\ninterfaces = ['a', 'a']\n"), HasSubstr("names a twice"));
  EXPECT_THAT(refusal("[defaults]\ninterfaces = [{}]\n"), HasSubstr("needs iface."));
  EXPECT_THAT(refusal("[defaults]\ninterfaces = [{ portal = 'a' }]\n"),
              HasSubstr("not an option of an interface"));
  EXPECT_THAT(refusal("portals = [{ portal = 'a', interface = 'b', iface.net_ifacename = 'c' }]\n"),
              HasSubstr("names a second interface"));
}

TEST(ConfigRefuses, MoreSessionsThanAPortalMayHave) {
  EXPECT_THAT(refusal("[defaults]\nnr_sessions = 9\n"), HasSubstr("from 1 to 8"));
}

TEST(ConfigRefuses, TargetSectionWithoutATargetName) {
  EXPECT_THAT(refusal("[targets.array]\n"), HasSubstr("does not begin with iqn."));
}

TEST(ConfigRefuses, UnknownTargetOption) {
  EXPECT_THAT(refusal("[targets.'iqn.2009-02.com.example:t']\nlun = 1\n"),
              HasSubstr("lun is not an option of a target"));
}

TEST(ConfigRefuses, UnknownLunOption) {
  EXPECT_EQ(refusal(kLun + "portal = '192.0.2.1'\n"),
            "c.toml:4: portal is not an option of a LUN; did you mean portals?");
}

TEST(ConfigRefuses, UnknownPortalOption) {
  EXPECT_EQ(refusal("portals = [\n { portal = 'a', iface = 'eth1' } ]\n"),
            "c.toml:2: iface is not an option of a portal");
}

TEST(ConfigRefuses, SettingAtTheTop) {
  EXPECT_EQ(refusal("no_path_retry = 'queue'\n"),
            "c.toml:1: no_path_retry belongs into [defaults] or [luns.ALIAS]");
}

TEST(ConfigRefuses, TopOptionInSection) {
  EXPECT_THAT(refusal("[defaults]\ninitiator_name = 'iqn.x'\n"),
              StartsWith("c.toml:2: initiator_name does not belong into a section"));
}

TEST(ConfigRefuses, SettingTwiceUnderBothNames) {
  EXPECT_EQ(refusal("[defaults]\ncmds_max = 1\n'node.session.cmds_max' = 2\n"),
            "c.toml:3: cmds_max is set twice, see line 2");
}

TEST(ConfigRefuses, InitiatorNameThatIsNone) {
  EXPECT_THAT(refusal("initiator_name = 'host1'\n"),
              StartsWith("c.toml:1: initiator_name does not begin with iqn., eui. or naa."));
}

TEST(ConfigRefuses, InitiatorNameWithBlank) {
  EXPECT_THAT(refusal("initiator_name = 'iqn.2009-02.com.example:a b'\n"), HasSubstr("blank"));
}

TEST(ConfigRefuses, InitiatorNameTooLong) {
  EXPECT_THAT(refusal("initiator_name = 'iqn." + std::string(300, 'x') + "'\n"),
              HasSubstr("304 bytes"));
}

TEST(ConfigRefuses, InitiatorNameOfWrongType) {
  EXPECT_EQ(refusal("initiator_name = 1\n"),
            "c.toml:1: initiator_name must be a string, not a whole number");
}

TEST(ConfigRefuses, AliasWithControlCharacter) {
  EXPECT_THAT(refusal("initiator_alias = \"a\\nb\"\n"), StartsWith("c.toml:1: initiator_alias"));
}

TEST(ConfigRefuses, UnknownLogLevel) {
  EXPECT_EQ(refusal("log_level = 'verbose'\n"),
            "c.toml:1: log_level must be error, warning, info or debug");
}

TEST(ConfigRefuses, RelativeRunDirectory) {
  EXPECT_THAT(refusal("run_directory = 'run'\n"), HasSubstr("absolute path"));
}

TEST(ConfigRefuses, RingPageOrderTooLarge) {
  EXPECT_EQ(refusal("max_ring_page_order = 5\n"),
            "c.toml:1: max_ring_page_order must be a whole number from 0 to 4, not 5");
}

TEST(ConfigRefuses, PortalsThatAreNoArray) {
  EXPECT_THAT(refusal("portals = '192.0.2.1'\n"), HasSubstr("must be an array"));
}

TEST(ConfigRefuses, NoPortals) {
  EXPECT_EQ(refusal("portals = []\n"), "c.toml:1: portals names no portal");
}

TEST(ConfigRefuses, PortalTwice) {
  EXPECT_EQ(refusal("portals = [ 'a',\n 'a:3260' ]\n"), "c.toml:2: portals names a:3260 twice");
}

TEST(ConfigRefuses, TooManyPortals) {
  std::string text = "portals = [";
  for (int number = 1; number <= 17; ++number) {
    text += "'192.0.2." + std::to_string(number) + "',";
  }
  EXPECT_THAT(refusal(text + "]\n"), HasSubstr("more than 16 portals"));
}

TEST(ConfigRefuses, PortalWithBadPort) {
  EXPECT_THAT(refusal("portals = ['a:99999']\n"),
              HasSubstr("port is not a number from 1 to 65535"));
}

TEST(ConfigRefuses, PortalOfWrongType) {
  EXPECT_THAT(refusal("portals = [3260]\n"), HasSubstr("must be a string \"HOST[:PORT]\""));
}

TEST(ConfigRefuses, PortalTableWithoutPortal) {
  EXPECT_THAT(refusal("portals = [{ interface = 'eth1' }]\n"), HasSubstr("needs portal ="));
}

TEST(ConfigRefuses, InterfaceNameTooLong) {
  EXPECT_THAT(refusal("portals = [{ portal = 'a', interface = 'abcdefghijklmnop' }]\n"),
              HasSubstr("network interface"));
}

TEST(ConfigRefuses, SecondsOutOfRange) {
  EXPECT_EQ(refusal("[defaults]\nnoop_out_interval = 4000\n"),
            "c.toml:2: noop_out_interval must be a number of seconds from 0 to 3600, not 4000");
  EXPECT_EQ(refusal("[defaults]\nlogin_timeout = 0.05\n"),
            "c.toml:2: login_timeout must be a number of seconds from 0.1 to 3600, not 0.05");
  EXPECT_THAT(refusal("[defaults]\nlogin_timeout = -1\n"), HasSubstr("not -1"));
}

TEST(ConfigRefuses, SecondsThatAreNoNumber) {
  EXPECT_THAT(refusal("[defaults]\nlogin_timeout = nan\n"), HasSubstr("not nan"));
  EXPECT_THAT(refusal("[defaults]\nlogin_timeout = inf\n"), HasSubstr("not inf"));
  EXPECT_EQ(refusal("[defaults]\nlogin_timeout = '15'\n"),
            "c.toml:2: login_timeout must be a number of seconds, not a string");
}

TEST(ConfigRefuses, WholeNumberOutOfRange) {
  EXPECT_THAT(refusal("[defaults]\nMaxOutstandingR2T = 9\n"), HasSubstr("from 1 to 8, not 9"));
  EXPECT_THAT(refusal("[defaults]\ncmds_max = 9223372036854775807\n"), HasSubstr("from 1 to 4096"));
}

TEST(ConfigRefuses, DecimalWhereWholeNumber) {
  EXPECT_THAT(refusal("[defaults]\nrr_min_io = 1.5\n"), HasSubstr("not a decimal number"));
}

TEST(ConfigRefuses, BadYesNo) {
  EXPECT_THAT(refusal("[defaults]\nInitialR2T = 'maybe'\n"), HasSubstr("\"Yes\" or \"No\""));
  EXPECT_THAT(refusal("[defaults]\nInitialR2T = 1\n"), HasSubstr("not a whole number"));
}

TEST(ConfigRefuses, FirstBurstLongerThanMaxBurst) {
  EXPECT_EQ(refusal("[defaults]\nMaxBurstLength = 4096\nFirstBurstLength = 8192\n"),
            "c.toml:3: FirstBurstLength (8192) must not be greater than MaxBurstLength (4096) "
            "(RFC 7143 13.14)");
}

TEST(ConfigRefuses, LunThatContradictsTheDefaults) {
  EXPECT_THAT(refusal("[defaults]\nFirstBurstLength = 8192\n" + kLun + "MaxBurstLength = 4096\n"),
              StartsWith("c.toml:6: FirstBurstLength"));
}

TEST(ConfigRefuses, BackoffUpsideDown) {
  EXPECT_EQ(refusal("[defaults]\nrelogin_backoff_max = 0.05\n"),
            "c.toml:2: relogin_backoff_min (0.1 s) must not be longer than relogin_backoff_max "
            "(0.05 s)");
}

TEST(ConfigRefuses, ConnectTimeoutBeyondLoginTimeout) {
  EXPECT_THAT(refusal("[defaults]\nlogin_timeout = 1\n"), StartsWith("c.toml:2: connect_timeout"));
}

TEST(ConfigRefuses, StallProbeBeyondPathTimeout) {
  EXPECT_THAT(refusal("[defaults]\npath_timeout = 0.1\n"), StartsWith("c.toml:2: stall_probe"));
}

TEST(ConfigRefuses, DefaultsThatAreNoSection) {
  EXPECT_EQ(refusal("defaults = 1\n"),
            "c.toml:1: defaults must be a section [defaults], not a whole number");
}

TEST(ConfigRefuses, LunThatIsNoSection) {
  EXPECT_THAT(refusal("[luns]\nroot = 'iqn.x'\n"), StartsWith("c.toml:2: root must be a section"));
}

TEST(ConfigRefuses, BadAlias) {
  EXPECT_THAT(refusal("[luns.'a b']\ntarget = 'iqn.x:y'\nlun = 0\n"),
              StartsWith("c.toml:1: a LUN's alias"));
  EXPECT_THAT(refusal("[luns.'iqn.x']\ntarget = 'iqn.x:y'\nlun = 0\n"),
              StartsWith("c.toml:1: a LUN's alias"));
}

TEST(ConfigRefuses, LunWithoutTarget) {
  EXPECT_EQ(refusal("[luns.root]\nlun = 0\n"), "c.toml:1: luns.root has no target = \"iqn...\"");
}

TEST(ConfigRefuses, LunWithoutNumber) {
  EXPECT_EQ(refusal("[luns.root]\ntarget = 'iqn.x:y'\n"),
            "c.toml:1: luns.root has no lun = NUMBER");
}

TEST(ConfigRefuses, LunNumberOutOfRange) {
  EXPECT_THAT(refusal("[luns.root]\nlun = 16384\n"), HasSubstr("from 0 to 16383"));
}

TEST(ConfigRefuses, BadTargetName) {
  EXPECT_THAT(refusal("[luns.root]\ntarget = 'disk'\n"),
              StartsWith("c.toml:2: target does not begin with"));
}

TEST(ConfigRefuses, FileTooLarge) {
  EXPECT_THAT(refusal(std::string(kMaxConfigurationBytes + 1, '#')), HasSubstr("has more than"));
}

}  // namespace
}  // namespace iscsi_blkback
