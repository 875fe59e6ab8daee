# The guest reboots by itself: a new domain, the same disks and data, nothing left of the old one.
# runs: trixie:pv trixie:pvh bookworm:pv
scenario() {
  target_start tgt 2
  mapfile -t disks < <(all_disks)
  guest_create g "$variant" "${disks[@]}"
  first=$(domid g)
  for vdev in $(all_vdevs); do guest_run g "mark-$vdev" 30 "leave_mark $vdev"; done
  guest_start g reboot 'reboot -f'
  guest_up g 2
  [ "$(domid g)" != "$first" ] || fail "the guest did not get a new domain"
  for vdev in $(all_vdevs); do
    guest_run g "find-$vdev" 30 "find_mark $vdev"
    guest_run g "fio-$vdev" 60 "fio_verify $vdev 3"
  done
  wait_until 20 "no process serves the old domain" has_no_child "$first"
  wait_until 20 "xenstore has no node of the old domain" has_no_nodes "$first"
  guest_shutdown g
  assert_nothing_left
}
