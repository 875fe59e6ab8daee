// Refusals of the configuration file by name, each with file and line: what is no such file, and
// settings of sessions, targets, LUNs and portals.
#include "tests/tools/config/config_text.h"

namespace iscsi_blkback {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::string repeated(const char* text, std::size_t times) {
  std::string all;
  for (std::size_t i = 0; i < times; ++i) {
    all += text;
  }
  return all;
}

std::string portals(int count) {
  std::string all;
  for (int number = 1; number <= count; ++number) {
    all += "'192.0.2." + std::to_string(number) + "', ";
  }
  return all;
}

TEST_P(ConfigRefuses, InOneSentence) {
  EXPECT_THAT(refusal(GetParam().text), GetParam().sentence);
}

INSTANTIATE_TEST_SUITE_P(
    Text, ConfigRefuses,
    testing::ValuesIn(std::vector<ConfigRefusal>{
        {"SectionThatIsNotClosed", "[defaults\n", StartsWith("c.toml:")},
        {"SectionThatIsOnlyABracket", "[", StartsWith("c.toml:")},
        {"SectionThatIsABracketBeforeAnOption", "[\nlog_level = 'info'\n", StartsWith("c.toml:")},
        {"LineTooLong", "[defaults]\na" + repeated(".a", 100000) + " = 1\n",
         "c.toml:2: the line has more than 2048 bytes"},
        {"CharactersBeyondAscii", "# gr\xc3\xbc\xc3\x9f\n\nlog_level = 'gr\xc3\xbc\xc3\x9f'\n",
         "c.toml:3: characters beyond ASCII may only stand in lines that begin with #"},
        {"CombiningCharacterAsAnOption", "\xcc\x8c = 1\n",
         StartsWith("c.toml:1: characters beyond ASCII")},
        {"FileTooLarge", std::string(kMaxConfigurationBytes + 1, '#'), HasSubstr("has more than")},
    }),
    name_of_refusal);

// Each is one line of [defaults]; the parser's own words would be of types and characters.
struct LineThatIsNoToml {
  const char* line;
  const char* said;  // of the second line
};

TEST(TomlMistake, IsSaidWithItsPlaceAndWhatToWrite) {
  for (const auto& [line, said] : std::vector<LineThatIsNoToml>{
           {"path_selector = round-robin",
            ":17: the text behind path_selector must stand in quotation marks: path_selector = "
            "\"...\""},
           {"  path_selector   =   round-robin 0  # as before",
            ":23: the text behind path_selector"},
           {"no_path_retry = queue", ":17: the text behind no_path_retry must stand in quotation"},
           {"no_path_retry = fail", ":17: the text behind no_path_retry must stand in quotation"},
           {"no_path_retry = 30s", ":17: the text behind no_path_retry must stand in quotation"},
           {"failback = immediate", ":12: the text behind failback must stand in quotation"},
           {"iface.ipaddress = 192.0.2.1", ":19: the text behind iface.ipaddress must stand"},
           {"iface.hwaddress = 52:54:00:12:34:56", ":19: the text behind iface.hwaddress must"},
           {"no_such_thing = value", ":17: the text behind no_such_thing must stand in"},
           {"shared = yes",
            ":10: shared must be true, false, \"Yes\" or \"No\", with the quotation"},
           {"shared = no",
            ":10: shared must be true, false, \"Yes\" or \"No\", with the quotation"},
           {"shared = True", ":10: shared must be true, false, \"Yes\" or \"No\""},
           {"login_timeout = 5s", ":17: login_timeout must be a number of seconds, with nothing"},
           {"login_timeout = 015", ":17: login_timeout must be a number of seconds, with nothing"},
           {"rr_min_io = 8;", ":13: rr_min_io must be a whole number, with nothing else"},
           {"rr_min_io = ", ":1: rr_min_io has no value"},
           {"rr_min_io 8", ":1: between an option and its value stands =: rr_min_io = ..."},
           {"path_selector \"round-robin 0\"",
            ":1: between an option and its value stands =: path_selector = ..."},
           {"path_selector = \"round-robin", ":17: the text behind path_selector has no closing"},
           {"path_selector = 'round-robin", ":17: the text behind path_selector has no closing"},
           {"prio_args = 'a' 'b'",
            ":13: something stands behind the text of prio_args: several are"},
           {"InitiatorAlias = \"a\\d\"",
            ":18: in the text behind InitiatorAlias a backslash begins"},
           {"interfaces = [eth1, eth2]",
            ":14: in the list of interfaces each text must stand in quotation marks, with commas "
            "between them: [\"...\", \"...\"]"},
           {"'node.session.auth.authmethod' = CHAP",
            ":34: the text behind 'node.session.auth.authmethod' must stand in quotation marks"},
           {"; a comment", ":1: a comment begins with #"},
           {"// a comment", ":1: a comment begins with #"},
           {"[targets.iqn.a:b]", ":1: a section begins with its name in brackets, with quotation"},
           {"[luns.a", ":1: a section begins with its name in brackets"},
       }) {
    EXPECT_THAT(refusal(std::string("[defaults]\n") + line + "\n"),
                StartsWith(std::string("c.toml:2") + said))
        << line;
  }
  EXPECT_THAT(refusal("portals = [\n  'a',\n  san2,\n]\n"),
              StartsWith("c.toml:3:3: a text must stand in quotation marks"));
  EXPECT_THAT(refusal("[defaults]\npassword = hunter2-hunter2\n"),
              AllOf(StartsWith("c.toml:2:12: the text behind password must stand in quotation"),
                    Not(HasSubstr("hunter2"))));
}

INSTANTIATE_TEST_SUITE_P(
    Options, ConfigRefuses,
    testing::ValuesIn(std::vector<ConfigRefusal>{
        {"KeyTwice", "log_level='info'\nlog_level='info'\n",
         "c.toml:2:1: log_level is in this file twice"},
        {"UnknownTopOption", "\ninitiatorname = 'x'\n",
         "c.toml:2: initiatorname is not an option of this file; did you mean initiator_name?"},
        {"UnknownSection", "[default]\nrr_min_io = 1\n",
         "c.toml:1: default is not an option of this file; did you mean defaults?"},
        {"UnknownDefault", "[defaults]\n\nno_such_thing = 5\n",
         "c.toml:3: no_such_thing is not an option of [defaults]"},
        {"MisspeltDefault", "[defaults]\nno-path_rety = 'queue'\n",
         "c.toml:2: no-path_rety is not an option of [defaults]; did you mean no_path_retry?"},
        {"MisspeltDefaultOfIscsid", "[defaults]\ninitialr2t = 'No'\n",
         HasSubstr("did you mean InitialR2T?")},
        {"UnknownLongName", "[defaults]\nnode.session.auth.user = 'me'\n",
         "c.toml:2: node.session.auth.user is not an option of [defaults]"},
        {"UnknownTargetOption", "[targets.'iqn.2009-02.com.example:t']\nlun = 1\n",
         HasSubstr("lun is not an option of a target")},
        {"UnknownLunOption", kLun + "portal = '192.0.2.1'\n",
         "c.toml:4: portal is not an option of a LUN; did you mean portals?"},
        {"WwidThatIsNone", kLun + "wwid = 'my disk'\n",
         "c.toml:4: wwid is no identity of a LUN as iscsi-blkctl ll or scsi_id shows it, such as "
         "36001405abcdef0123456789abcdef012"},
        {"WwidOfAllLuns", "[defaults]\nwwid = '36001405abcdef'\n", StartsWith("c.toml:2: ")},
        {"UnknownPortalOption", "portals = [\n { portal = 'a', iface = 'eth1' } ]\n",
         "c.toml:2: iface is not an option of a portal"},
        {"UnknownInterfaceOption", "[defaults]\ninterfaces = [{ portal = 'a' }]\n",
         HasSubstr("not an option of an interface")},
        {"SettingAtTheTop", "no_path_retry = 'queue'\n",
         "c.toml:1: no_path_retry belongs into [defaults] or [luns.ALIAS]"},
        {"TopOptionInSection", "[defaults]\ninitiator_name = 'iqn.x'\n",
         StartsWith("c.toml:2: initiator_name does not belong into a section")},
        {"SettingTwiceUnderBothNames", "[defaults]\ncmds_max = 1\n'node.session.cmds_max' = 2\n",
         "c.toml:3: cmds_max is set twice, see line 2"},
        {"DefaultsThatAreNoSection", "defaults = 1\n",
         "c.toml:1: defaults must be a section [defaults], not a whole number"},
        {"LunThatIsNoSection", "[luns]\nroot = 'iqn.x'\n",
         StartsWith("c.toml:2: root must be a section")},
    }),
    name_of_refusal);

INSTANTIATE_TEST_SUITE_P(
    Chap, ConfigRefuses,
    testing::ValuesIn(std::vector<ConfigRefusal>{
        {"SecretThatIsTooShort", "[defaults]\nusername = 'a'\npassword = 'tooshort'\n",
         AllOf(StartsWith("c.toml:3: node.session.auth: password must have 12"),
               Not(HasSubstr("tooshort")))},
        {"MissingSecret", "[defaults]\nusername = 'a'\n",
         "c.toml:2: node.session.auth: username is set, and there is no password for it"},
        {"MissingSecretOfTheTargets", kChap + "username_in = 'array'\n",
         "c.toml:5: node.session.auth: username_in is set, and there is no password_in for it"},
        {"MissingSecretOfDiscovery", "[defaults]\ndiscovery.sendtargets.auth.username = 'a'\n",
         "c.toml:2: discovery.sendtargets.auth: username is set, and there is no password for it"},
        {"EmptySecret", "[defaults]\nusername = 'a'\npassword = ''\n",
         "c.toml:3: password must have 12 to 255 characters"},
        {"OneSecretForBothDirections",
         kChap + "username_in = 'array'\npassword_in = 'initiator-secret'\n",
         AllOf(StartsWith("c.toml:6: "), HasSubstr("must not be the same"),
               Not(HasSubstr("initiator-secret")))},
        {"SecretThatIsNoString", "[defaults]\npassword = 123456789012\n",
         "c.toml:2: password must be a string, not a whole number"},
        {"ChapWithoutAName", "[defaults]\nauthmethod = 'CHAP'\n",
         StartsWith("c.toml:2: node.session.auth: CHAP needs a username")},
        {"PasswordWithoutAName", "[defaults]\npassword = 'initiator-secret'\n",
         HasSubstr("CHAP needs")},
        {"UnknownAuthmethod", "[defaults]\nauthmethod = 'SRP'\n",
         "c.toml:2: authmethod must be \"None\" or \"CHAP\""},
        {"UnknownChapAlgorithm", "[defaults]\nchap_algs = 'MD4'\n",
         StartsWith("c.toml:2: chap_algs must be a list")},
        {"NoChapAlgorithm", "[defaults]\nchap_algs = ''\n",
         StartsWith("c.toml:2: chap_algs must be a list")},
        {"ChapAlgorithmsThatEndWithAComma", "[defaults]\nchap_algs = 'SHA256,'\n",
         StartsWith("c.toml:2: chap_algs must be a list")},
        {"ChapAlgorithmTwice", "[defaults]\nchap_algs = 'MD5,MD5'\n",
         StartsWith("c.toml:2: chap_algs must be a list")},
    }),
    name_of_refusal);

INSTANTIATE_TEST_SUITE_P(
    Sessions, ConfigRefuses,
    testing::ValuesIn(std::vector<ConfigRefusal>{
        {"UnknownDigest", "[defaults]\nHeaderDigest = 'CRC32'\n",
         StartsWith("c.toml:2: HeaderDigest must be \"None\"")},
        {"OtherErrorRecoveryLevel", "[defaults]\nErrorRecoveryLevel = 2\n",
         "c.toml:2: ErrorRecoveryLevel can only be 0: a lost connection is replaced by a new "
         "session"},
        {"OtherMaxConnections", "[defaults]\nMaxConnections = 2\n", HasSubstr("nr_sessions")},
        {"OtherDataPDUInOrder", "[defaults]\nDataPDUInOrder = 'No'\n",
         HasSubstr("can only be Yes")},
        {"FirstBurstLongerThanMaxBurst",
         "[defaults]\nMaxBurstLength = 4096\nFirstBurstLength = 8192\n",
         "c.toml:3: FirstBurstLength (8192) must not be greater than MaxBurstLength (4096) (RFC "
         "7143 13.14)"},
        {"LunThatContradictsTheDefaults",
         "[defaults]\nFirstBurstLength = 8192\n" + kLun + "MaxBurstLength = 4096\n",
         StartsWith("c.toml:6: FirstBurstLength")},
        {"BackoffUpsideDown", "[defaults]\nrelogin_backoff_max = 0.05\n",
         "c.toml:2: relogin_backoff_min (0.1 s) must not be longer than relogin_backoff_max (0.05 "
         "s)"},
        {"ConnectTimeoutBeyondLoginTimeout", "[defaults]\nlogin_timeout = 1\n",
         StartsWith("c.toml:2: connect_timeout")},
        {"StallProbeBeyondPathTimeout", "[defaults]\npath_timeout = 0.1\n",
         StartsWith("c.toml:2: stall_probe")},
        {"MoreSessionsThanAPortalMayHave", "[defaults]\nnr_sessions = 9\n",
         HasSubstr("from 1 to 8")},
    }),
    name_of_refusal);

INSTANTIATE_TEST_SUITE_P(
    Interfaces, ConfigRefuses,
    testing::ValuesIn(std::vector<ConfigRefusal>{
        {"BothWaysToNameInterfaces",
         "[defaults]\ninterfaces = ['eth1']\niface.ipaddress = '192.0.2.1'\n",
         "c.toml:3: either interfaces or iface.ipaddress may be set, not both"},
        {"InterfaceAddressThatIsAName", "[defaults]\niface.ipaddress = 'host'\n",
         HasSubstr("numeric IPv4")},
        {"InterfaceHardwareAddressTooShort", "[defaults]\niface.hwaddress = '52:54'\n",
         HasSubstr("hardware address")},
        {"InterfaceNameWithBlank", "[defaults]\niface.net_ifacename = 'a b'\n",
         HasSubstr("network interface")},
        {"NoInterfaces", "[defaults]\ninterfaces = []\n", HasSubstr("names no interface")},
        {"InterfaceTwice", "[defaults]\ninterfaces = ['a', 'a']\n", HasSubstr("names a twice")},
        {"InterfaceThatNamesNothing", "[defaults]\ninterfaces = [{}]\n", HasSubstr("needs iface.")},
        {"SecondInterfaceOfAPortal",
         "portals = [{ portal = 'a', interface = 'b', iface.net_ifacename = 'c' }]\n",
         HasSubstr("names a second interface")},
        {"InterfaceNameTooLong", "portals = [{ portal = 'a', interface = 'abcdefghijklmnop' }]\n",
         HasSubstr("network interface")},
    }),
    name_of_refusal);

INSTANTIATE_TEST_SUITE_P(
    Portals, ConfigRefuses,
    testing::ValuesIn(std::vector<ConfigRefusal>{
        {"PortalsThatAreNoArray", "portals = '192.0.2.1'\n", HasSubstr("must be an array")},
        {"NoPortals", "portals = []\n", "c.toml:1: portals names no portal"},
        {"DiscoveryPortalWithATarget", "portals = [{ portal = 'a', target = 'iqn.a:b' }]\n",
         HasSubstr("have none of their own")},
        {"PortalOfATargetThatIsNone",
         "[luns.a]\ntarget = 'iqn.a:b'\nlun = 1\nportals = [{ portal = 'a', target = 'b' }]\n",
         HasSubstr("does not begin with iqn.")},
        {"NoTargetNameInTheArray", "[luns.a]\ntarget = []\nlun = 1\n",
         "c.toml:2: target names none, or more than 8 names"},
        {"TargetNameTwice", "[luns.a]\nlun = 1\ntarget = ['iqn.a:b',\n 'iqn.a:b']\n",
         "c.toml:4: target names iqn.a:b twice"},
        {"TargetNameThatIsNoName", "[luns.a]\nlun = 1\ntarget = ['iqn.a:b', 5]\n",
         HasSubstr("must be a string")},
        {"TargetNameWithoutAPortal",
         "[luns.a]\nlun = 1\ntarget = ['iqn.a:b', 'iqn.a:c']\nportals = ['h']\n",
         HasSubstr("but none for the target iqn.a:c")},
        {"PortalTwice", "portals = [ 'a',\n 'a:3260' ]\n", "c.toml:2: portals names a:3260 twice"},
        {"TooManyPortals", "portals = [" + portals(33) + "]\n", HasSubstr("more than 32 portals")},
        {"PortalWithBadPort", "portals = ['a:99999']\n",
         HasSubstr("port is not a number from 1 to 65535")},
        {"PortalOfWrongType", "portals = [3260]\n", HasSubstr("must be a string \"HOST[:PORT]\"")},
        {"PortalTableWithoutPortal", "portals = [{ interface = 'eth1' }]\n",
         HasSubstr("needs portal =")},
    }),
    name_of_refusal);

INSTANTIATE_TEST_SUITE_P(
    Names, ConfigRefuses,
    testing::ValuesIn(std::vector<ConfigRefusal>{
        {"InitiatorNameThatIsNone", "initiator_name = 'host1'\n",
         StartsWith("c.toml:1: initiator_name does not begin with iqn., eui. or naa.")},
        {"InitiatorNameWithBlank", "initiator_name = 'iqn.2009-02.com.example:a b'\n",
         HasSubstr("blank")},
        {"InitiatorNameTooLong", "initiator_name = 'iqn." + std::string(300, 'x') + "'\n",
         HasSubstr("304 bytes")},
        {"InitiatorNameOfWrongType", "initiator_name = 1\n",
         "c.toml:1: initiator_name must be a string, not a whole number"},
        {"InitiatorAliasWithControlCharacter", "initiator_alias = \"a\\nb\"\n",
         StartsWith("c.toml:1: initiator_alias")},
        {"InitiatorAliasOfDefaultsWithControlCharacter", "[defaults]\nInitiatorAlias = \"a\\nb\"\n",
         HasSubstr("control character")},
        {"UnknownLogLevel", "log_level = 'verbose'\n",
         "c.toml:1: log_level must be error, warning, info or debug"},
        {"RelativeRunDirectory", "run_directory = 'run'\n",
         HasSubstr("run_directory must be an absolute path")},
        {"RelativeStateDirectory", "state_directory = 'run'\n",
         HasSubstr("state_directory must be an absolute path")},
        {"PollMaxTooLong", "poll_max_us = 1001\n",
         "c.toml:1: poll_max_us must be a whole number from 0 to 1000, not 1001"},
        {"PollCpuShareOfMoreThanAll", "poll_cpu_share = 101\n",
         "c.toml:1: poll_cpu_share must be a whole number from 1 to 100, not 101"},
        {"TooManyReactors", "reactors = 17\n",
         "c.toml:1: reactors must be a whole number from 1 to 16, not 17"},
        {"NoQueues", "max_queues = 0\n",
         "c.toml:1: max_queues must be a whole number from 1 to 16, not 0"},
        {"IndirectSegmentsTooMany", "max_indirect_segments = 257\n",
         "c.toml:1: max_indirect_segments must be a whole number from 0 to 256, not 257"},
        {"RingPageOrderTooLarge", "max_ring_page_order = 5\n",
         "c.toml:1: max_ring_page_order must be a whole number from 0 to 4, not 5"},
    }),
    name_of_refusal);

INSTANTIATE_TEST_SUITE_P(
    Values, ConfigRefuses,
    testing::ValuesIn(std::vector<ConfigRefusal>{
        {"SecondsAboveRange", "[defaults]\nnoop_out_interval = 4000\n",
         "c.toml:2: noop_out_interval must be a number of seconds from 0 to 3600, not 4000"},
        {"SecondsBelowRange", "[defaults]\nlogin_timeout = 0.05\n",
         "c.toml:2: login_timeout must be a number of seconds from 0.1 to 3600, not 0.05"},
        {"SecondsBelowZero", "[defaults]\nlogin_timeout = -1\n", HasSubstr("not -1")},
        {"SecondsThatAreNotANumber", "[defaults]\nlogin_timeout = nan\n", HasSubstr("not nan")},
        {"SecondsThatAreInfinite", "[defaults]\nlogin_timeout = inf\n", HasSubstr("not inf")},
        {"SecondsThatAreAString", "[defaults]\nlogin_timeout = '15'\n",
         "c.toml:2: login_timeout must be a number of seconds, not a string"},
        {"WholeNumberOutOfRange", "[defaults]\nMaxOutstandingR2T = 9\n",
         HasSubstr("from 1 to 8, not 9")},
        {"WholeNumberOf63Bits", "[defaults]\ncmds_max = 9223372036854775807\n",
         HasSubstr("from 1 to 4096")},
        {"DecimalWhereWholeNumber", "[defaults]\nrr_min_io = 1.5\n",
         HasSubstr("not a decimal number")},
        {"SectorsOfNoKnownSize", "[defaults]\nsector_size = 2048\n",
         "c.toml:2: sector_size must be 512 or 4096"},
        {"SectorsOfWrongType", "[defaults]\nsector_size = '4k'\n",
         "c.toml:2: sector_size must be 512 or 4096"},
        {"BadYesNo", "[defaults]\nInitialR2T = 'maybe'\n", HasSubstr("\"Yes\" or \"No\"")},
        {"YesNoOfWrongType", "[defaults]\nInitialR2T = 1\n", HasSubstr("not a whole number")},
    }),
    name_of_refusal);

INSTANTIATE_TEST_SUITE_P(
    Luns, ConfigRefuses,
    testing::ValuesIn(std::vector<ConfigRefusal>{
        {"TargetSectionWithoutATargetName", "[targets.array]\n",
         HasSubstr("does not begin with iqn.")},
        {"AliasWithBlank", "[luns.'a b']\ntarget = 'iqn.x:y'\nlun = 0\n",
         StartsWith("c.toml:1: a LUN's alias")},
        {"AliasLikeATargetName", "[luns.'iqn.x']\ntarget = 'iqn.x:y'\nlun = 0\n",
         StartsWith("c.toml:1: a LUN's alias")},
        {"LunWithoutTarget", "[luns.root]\nlun = 0\n",
         "c.toml:1: luns.root has no target = \"iqn...\""},
        {"LunWithoutNumber", "[luns.root]\ntarget = 'iqn.x:y'\n",
         "c.toml:1: luns.root has no lun = NUMBER"},
        {"LunNumberOutOfRange", "[luns.root]\nlun = 16384\n", HasSubstr("from 0 to 16383")},
        {"BadTargetName", "[luns.root]\ntarget = 'disk'\n",
         StartsWith("c.toml:2: target does not begin with")},
    }),
    name_of_refusal);

// A disk line that names the target would have the options of either.
const std::string kOther = "[luns.other]\ntarget = 'IQN.2009-02.com.example:T'\nlun = 1\n";
constexpr const char* kSayTheSame = ": say the same in both, or remove one of them";

INSTANTIATE_TEST_SUITE_P(
    Aliases, ConfigRefuses,
    testing::ValuesIn(std::vector<ConfigRefusal>{
        {"SharedAndNotShared", kOther + "shared = true\n" + kLun + "shared = 'No'\n",
         std::string("c.toml:8: luns.root and luns.other (line 1) are one LUN, 1 of "
                     "iqn.2009-02.com.example:t, and shared is not the same (luns.other: yes in "
                     "line 4; luns.root: no in line 8)") +
             kSayTheSame},
        {"SharedAndNothingSaid", kOther + "shared = true\n" + kLun,
         std::string("c.toml:5: luns.root and luns.other (line 1) are one LUN, 1 of "
                     "iqn.2009-02.com.example:t, and shared is not the same (luns.other: yes in "
                     "line 4; luns.root: no, not set)") +
             kSayTheSame},
        {"NothingSaidAndShared", kLun + kOther + "\nshared = true\n",
         HasSubstr("c.toml:8: luns.other and luns.root (line 1)")},
        {"OtherTime", "[defaults]\npath_timeout = 3\n" + kOther + kLun + "path_timeout = 2.5\n",
         HasSubstr(
             "path_timeout is not the same (luns.other: 3 in line 2 of [defaults]; luns.root: "
             "2.5 in line 9)")},
        {"OtherText", kOther + "no_path_retry = 'queue'\n" + kLun + "features = '0'\n",
         HasSubstr("no_path_retry is not the same (luns.other: line 4; luns.root: not set)")},
        {"OtherPassword",
         kOther + "username = 'a'\npassword = 'initiator-secret'\n" + kLun +
             "username = 'a'\npassword = 'another--secret'\n",
         AllOf(HasSubstr("password is not the same (luns.other: line 5; luns.root: line 10)"),
               Not(HasSubstr("-secret")))},
        {"OtherWwid", kOther + "wwid = '36001405aa'\n" + kLun + "wwid = '36001405ab'\n",
         HasSubstr("wwid is not the same")},
        {"BySecondNames",
         "[luns.other]\ntarget = ['iqn.x:a', 'iqn.x:b']\nlun = 1\nshared = true\n"
         "[luns.root]\ntarget = 'iqn.x:c'\nlun = 1\n"
         "portals = [{ portal = 'h', target = 'iqn.X:B' }]\n",
         HasSubstr("c.toml:5: luns.root and luns.other (line 1) are one LUN")},
        {"ThirdOfThree",
         kLun + kOther +
             "[luns.third]\ntarget = 'iqn.2009-02.com.example:t'\n"
             "lun = 1\nsector_size = 4096\n",
         HasSubstr("luns.third and luns.root (line 1)")},
    }),
    name_of_refusal);

TEST(Config, AliasesOfOneLunMaySayTheSameAndLeadElsewhere) {
  for (const std::string& text : {
           kOther + kLun,
           kOther + "shared = true\nno_path_retry = 5\n" + kLun +
               "shared = 'Yes'\nno_path_retry = '5'\n",
           kOther + "portals = ['a']\niface.net_ifacename = 'eth1'\n" + kLun + "portals = ['b']\n",
           kOther + "interfaces = ['eth1', 'eth2']\n" + kLun,
           // Another LUN, of the target or of another one.
           "[luns.other]\ntarget = 'iqn.2009-02.com.example:t'\nlun = 2\nshared = true\n" + kLun,
           "[luns.other]\ntarget = 'iqn.2009-02.com.example:u'\nlun = 1\nshared = true\n" + kLun,
       }) {
    EXPECT_EQ(accepted(text).luns.size(), 2U) << text;
  }
}

}  // namespace
}  // namespace iscsi_blkback
