# xl destroy in the middle of I/O, and while no path works and requests are queued.
# runs: trixie:pv-busy trixie:pvh-busy trixie:pv-outage trixie:pvh-outage bookworm:pv-busy bookworm:pv-outage
scenario() {
  target_start tgt 2
  # The target notices by itself when an initiator is gone behind a dead link.
  tgt --mode target --op update --tid 1 --name nop_interval --value 2
  tgt --mode target --op update --tid 1 --name nop_count --value 2
  mapfile -t disks < <(all_disks)
  guest_create g "${variant%-*}" "${disks[@]}"
  for vdev in $(all_vdevs); do guest_start g "fio-$vdev" "fio_verify $vdev 60"; done
  sleep 4
  if [ "${variant#*-}" = outage ]; then
    cut_portal 1 reset
    cut_portal 2 drop
    sleep 4
  fi
  guest_destroy g
  for id in $(sort -un "$scenario_dir/domids"); do
    wait_until 20 "no process serves domain $id" has_no_child "$id"
  done
  if [ "${variant#*-}" = outage ]; then
    restore_portal 1
    restore_portal 2
  fi
  assert_nothing_left
}
