# Disks come and go under a running guest, which meanwhile keeps its first disk busy.
# runs: trixie:pv trixie:pvh bookworm:pv
scenario() {
  target_start tgt 2
  guest_create g "$variant" "$(disk qdisk xvda 1)"
  guest_start g base 'fio_verify xvda 40'
  kinds=qdisk; [ "$suite" = bookworm ] || kinds='qdisk vbd3 qdisk'
  sleep 2
  grants_in_use "$(domid g)" | wc -l > "$scenario_dir/grants.before"
  turn=0
  for kind in $kinds; do
    turn=$((turn + 1))
    note "attach $turn: $kind"
    attach g "$(disk "$kind" xvdc 2)" || fail "xl block-attach ($kind) failed: $(cat "$scenario_dir/attach.log")"
    guest_run g "fio-$turn" 60 'fio_verify xvdc 3'
    [ -n "$(backend_node g xvdc)" ] || fail "there is no backend node of xvdc"
    detach g xvdc || fail "xl block-detach ($kind) failed: $(cat "$scenario_dir/detach.log")"
    guest_run g "gone-$turn" 40 'wait_no_disk xvdc'
    [ -z "$(backend_node g xvdc)" ] || fail "a backend node of xvdc is left: $(backend_node g xvdc)"
  done
  guest_finish g base 90
  # The first disk alone again: not a grant more than before (its own data grants come and go).
  before=$(cat "$scenario_dir/grants.before") after=$(grants_in_use "$(domid g)" | wc -l)
  note "grants in use: $before before, $after after"
  [ "$after" -le "$before" ] || fail "$((after - before)) grants are left in use after the detach"
  guest_shutdown g
  assert_nothing_left
}
