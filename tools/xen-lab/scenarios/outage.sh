# Both paths are gone for 30 s, one loudly and one silently, and come back: the guest sees a pause.
# runs: trixie:pv trixie:pvh bookworm:pv
scenario() {
  target_start tgt 2
  mapfile -t disks < <(all_disks)
  guest_create g "$variant" "${disks[@]}"
  for vdev in $(all_vdevs); do guest_start g "fio-$vdev" "fio_verify $vdev 40"; done
  sleep 3
  cut_portal 1 reset
  cut_portal 2 drop
  sleep 30
  show_paths
  restore_portal 1
  restore_portal 2
  for vdev in $(all_vdevs); do guest_finish g "fio-$vdev" 60; done
  guest_shutdown g
  assert_nothing_left
}
