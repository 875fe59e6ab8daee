# Flushes that fail. A target refuses some of them (HARDWARE ERROR, internal target failure): they are tried again until they
# succeed, and blkfront goes on flushing. Another one (tgt, whose disk is on a full file system) loses what it had
# acknowledged: nothing that the guest has synced may seem safe, so its disk is not served any more.
# runs: bookworm:- trixie:-
# steps: refused lost
log_says() { grep -qF "$1" /tmp/results/iscsi-blkback.log; } # TEXT
# A write, an fsync, and what blkfront thinks of the disk then.
sync_some='dd if=/dev/urandom of=/dev/xvda bs=64k count=16 conv=fsync 2> /dev/null && echo synced; cat /sys/block/xvda/queue/write_cache'
refused() {
  null_target_start --failing-flushes 5
  guest_create g pv "$(null_disk xvda)"
  for turn in 1 2; do
    guest_run g "sync$turn" 60 "$sync_some"
    job_output g "sync$turn" | grep -qx synced || fail "the guest's fsync() failed"
    job_output g "sync$turn" | grep -qx 'write back' || fail "blkfront has switched flushes off"
  done
  log_says 'a flush failed: ' || fail "the log does not say that a flush has failed"
  log_says 'flushes succeed again' || fail "the log does not say that flushes succeed again"
  guest_shutdown g
}
lost() {
  local small=$scenario_dir/small
  network_start 2
  mkdir "$small"
  mount -t tmpfs -o size=4m none "$small" || fail "there is no small file system"
  truncate -s 64M "$small/disk"
  modprobe loop
  ln -s "$(losetup -f --show "$small/disk")" "$scenario_dir/disk.1"
  tgt_start 2 1
  guest_create h pv "$(disk qdisk xvda 1)"
  guest_start h sync 'dd if=/dev/urandom of=/dev/xvda bs=64k count=512 conv=fsync && echo synced'
  wait_until 60 "the log says that data is lost" log_says 'the target has lost data that it had acknowledged'
  wait_until 20 "hotplug-error says so" node_says 'has lost data'
  nap 3
  not console_has h '\[sync\] synced*' || fail "the guest's fsync() succeeded, and its data is lost"
  guest_destroy h
}
node_says() { xenstore-read "$(backend_node h xvda)/hotplug-error" 2> /dev/null | grep -q "$1"; } # TEXT
scenario() {
  step refused
  refused
  step lost
  lost
  assert_nothing_left
}
