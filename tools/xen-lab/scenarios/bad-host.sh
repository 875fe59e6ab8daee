# What is wrong with the host is said in one sentence, and the program ends.
# runs: trixie:- bookworm:-
# tools/test runs: bookworm:-
refuses() { # WHAT COMMAND...
  local what=$1 output status; shift
  output=$(timeout $((20 * patience)) "$@" 2>&1); status=$?
  note "$what: status $status: $output"
  [ "$status" != 0 ] || fail "$what: the program ended well"
  [ "$status" -lt 126 ] || fail "$what: the program did not run"
  [ "$status" != 124 ] || fail "$what: the program did not end"
  [ "$(grep -c . <<< "$output")" = 1 ] || fail "$what: not one sentence but: $output"
}
scenario() {
  refuses 'no /dev/xen' unshare --mount sh -c 'mount -t tmpfs none /dev/xen && exec iscsi-blkback'
  config=$scenario_dir/config.toml
  echo 'no_such_key = 1' > "$config"; chmod 600 "$config"
  refuses 'unknown key in the config file' iscsi-blkback --config "$config"
  echo 'path_selector = 7' > "$config"
  refuses 'wrong value in the config file' iscsi-blkback --config "$config"
  refuses 'a second service' iscsi-blkback
  assert_service_healthy
}
