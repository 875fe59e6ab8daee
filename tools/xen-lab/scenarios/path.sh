# One of two paths is lost while the guest writes and verifies, and comes back later. The other path
# is then lost in turn, which shows that the first one is really in use again.
# runs: trixie:pv-reset trixie:pv-drop trixie:pvh-reset trixie:pvh-drop bookworm:pv-reset bookworm:pv-drop
scenario() {
  target_start tgt 2
  mapfile -t disks < <(all_disks)
  guest_create g "${variant%-*}" "${disks[@]}"
  for vdev in $(all_vdevs); do guest_start g "fio-$vdev" "fio_verify $vdev 18"; done
  sleep 3
  cut_portal 1 "${variant#*-}"
  sleep 4
  show_paths
  restore_portal 1
  wait_until 20 "portal 1 has a connection again" portal_in_use 1
  show_paths
  cut_portal 2 "${variant#*-}"
  sleep 4
  restore_portal 2
  for vdev in $(all_vdevs); do guest_finish g "fio-$vdev" 60; done
  guest_shutdown g
  assert_nothing_left
}
