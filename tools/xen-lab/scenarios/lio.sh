# The same disk lines with the Linux kernel's target: both portals in one portal group, and each
# portal in a group of its own. One path is lost meanwhile.
# runs: trixie:one bookworm:groups
# tools/test runs: bookworm:groups
scenario() {
  kind=lio; [ "$variant" = one ] || kind=lio-groups
  target_start $kind 2
  mapfile -t disks < <(all_disks)
  guest_create g pv "${disks[@]}"
  guest_run g fs 60 'check_filesystem xvda'
  for vdev in $(all_vdevs); do guest_start g "fio-$vdev" "fio_verify $vdev 10"; done
  sleep 3
  show_paths
  cut_portal 2 reset
  sleep 3
  restore_portal 2
  for vdev in $(all_vdevs); do guest_finish g "fio-$vdev" 60; done
  assert_no_kernel_path
  guest_shutdown g
  assert_nothing_left
}
