# A guest's life besides I/O: disks come and go under it, it reboots, it is destroyed in the middle of
# I/O, and while no path works and requests are queued.
# runs: trixie:pvh bookworm:pv
# tools/test runs: bookworm:pv
# timeout: 450
# steps: attach reboot destroy-busy destroy-outage
count_grants() { grants_in_use "$(domid g)" | wc -l; }
grants_at_most() { [ "$(count_grants)" -le "$1" ]; }
attach_and_detach() {
  local kind kinds='qdisk qdisk' turn=0 before=''
  [ "$suite" = bookworm ] || kinds='qdisk vbd3 qdisk'
  # The console's page and xvda's ring; a copy under way may add to it for a moment, so before fio.
  before=$(count_grants)
  guest_start g base 'fio_verify xvda 600'
  guest_says g base 30 running
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
  guest_start g stop stop_fio
  guest_finish g base 60
  note "grants in use: $before before, $(count_grants) after it all"
  wait_until 15 "no more than $before grants are in use: $(grants_in_use "$(domid g)")" grants_at_most "$before"
}
reboot() {
  local first; first=$(domid g)
  guest_run g mark 30 'leave_mark xvda'
  guest_start g reboot 'reboot -f'
  guest_up g 2
  [ "$(domid g)" != "$first" ] || fail "the guest did not get a new domain"
  guest_run g find 30 'find_mark xvda'
  wait_until 20 "no process serves the old domain" has_no_child "$first"
  wait_until 20 "xenstore has no node of the old domain" has_no_nodes "$first"
}
scenario() {
  step attach
  target_start tgt 2 64 64
  # The target notices by itself when an initiator is gone behind a dead link.
  tgt --mode target --op update --tid 1 --name nop_interval --value 2
  tgt --mode target --op update --tid 1 --name nop_count --value 2
  guest_create g "$variant" "$(disk qdisk xvda 1)"
  attach_and_detach
  step reboot
  reboot
  step destroy-busy
  guest_start g fio-busy 'fio_verify xvda 600'
  guest_says g fio-busy 30 running
  sleep 3
  guest_destroy g
  assert_nothing_left
  step destroy-outage
  mapfile -t disks < <(all_disks)
  guest_create h "$variant" "${disks[@]}"
  for vdev in $(all_vdevs); do guest_start h "fio-$vdev" "fio_verify $vdev 600"; done
  for vdev in $(all_vdevs); do guest_says h "fio-$vdev" 30 running; done
  sleep 2
  cut_portal 1 reset
  cut_portal 2 drop
  sleep 4
  guest_destroy h
  wait_until 20 "the guest is gone from Xen, so no grant of it is mapped" is_gone "$(tail -1 "$scenario_dir/domids")"
  # What it has lost may still strike: its process stays until a path is back and that is fenced.
  restore_portal 1
  restore_portal 2
  assert_nothing_left
}
