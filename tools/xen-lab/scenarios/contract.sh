# The suite that the in-memory Xen passes everywhere, here on the real grant table, event channels
# and xenstore.
# runs: trixie:- bookworm:-
# tools/test runs: bookworm:-
scenario() {
  program=/usr/libexec/iscsi-blkback/xen_contract_test
  [ -x $program ] || fail "the payload has no xen_contract_test"
  $program --real || fail "xen_contract_test failed with status $?"
}
