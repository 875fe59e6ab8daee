# The main way: mkfs, mount, files, then random writes that are all read back and compared.
# runs: trixie:pv trixie:pvh bookworm:pv
scenario() {
  target_start tgt 2
  mapfile -t disks < <(all_disks)
  guest_create g "$variant" "${disks[@]}"
  for vdev in $(all_vdevs); do guest_run g "fs-$vdev" 60 "check_filesystem $vdev"; done
  for vdev in $(all_vdevs); do guest_start g "fio-$vdev" "fio_verify $vdev 5"; done
  show_paths
  for vdev in $(all_vdevs); do guest_finish g "fio-$vdev" 60; done
  assert_no_kernel_path
  guest_shutdown g
  assert_nothing_left
}
