# The main way, in one guest's life: mkfs, mount, files; then random writes that are all read back and
# compared, while either of two paths in turn is reset and silently dropped, and while both are gone.
# runs: trixie:pvh bookworm:pv
# tools/test runs: bookworm:pv
# steps: filesystem verify reset drop outage gone
# One path is lost and comes back; the other one is lost in turn, which shows that the first one is
# really in use again.
lose_each_path() { # reset|drop
  cut_portal 1 "$1"
  sleep 3
  show_paths
  restore_portal 1
  wait_until 20 "portal 1 has a connection again" portal_in_use 1
  cut_portal 2 "$1"
  sleep 3
  restore_portal 2
  wait_until 20 "portal 2 has a connection again" portal_in_use 2
}
fio_goes_on() { for vdev in $(all_vdevs); do ! job_ended g "fio-$vdev" || guest_finish g "fio-$vdev" 1; done; }
scenario() {
  step filesystem
  target_start tgt 2
  mapfile -t disks < <(all_disks)
  guest_create g "$variant" "${disks[@]}"
  for vdev in $(all_vdevs); do guest_run g "fs-$vdev" 60 "check_filesystem $vdev"; done
  step verify
  for vdev in $(all_vdevs); do guest_start g "fio-$vdev" "fio_verify $vdev 600"; done
  for vdev in $(all_vdevs); do guest_says g "fio-$vdev" 30 running; done
  sleep 4
  show_paths
  fio_goes_on
  assert_no_kernel_path
  step reset
  lose_each_path reset
  fio_goes_on
  step drop
  lose_each_path drop
  fio_goes_on
  step outage
  cut_portal 1 reset
  cut_portal 2 drop
  sleep 30
  show_paths
  fio_goes_on
  restore_portal 1
  restore_portal 2
  wait_until 20 "a portal has a connection again" has_connections 1
  sleep 3
  guest_start g stop stop_fio
  for vdev in $(all_vdevs); do guest_finish g "fio-$vdev" 60; done
  step gone
  guest_shutdown g
  assert_nothing_left
}
