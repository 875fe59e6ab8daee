# A guest gives back what it does not need, to a thin LUN of LIO over two paths: mkfs and fstrim shrink the file
# behind the LUN, and no write that comes later is lost, though a path is cut meanwhile. "no-discard" on the disk
# line, and a thick LUN, offer nothing. Large requests come as such. Single sectors of a LUN with blocks of 4 KiB
# are written and read back meanwhile.
# runs: trixie:pvh bookworm:pv
# tools/test runs: bookworm:pv
backing_kib() { du -k "$scenario_dir/disk.$1" | cut -f1; } # LUN
offers() { guest_run g "offer-$1-$2" 30 "[ \"\$(cat /sys/block/$1/queue/discard_max_bytes | sed 's/^[1-9].*/yes/;s/^0/no/')\" = $2 ]"; } # VDEV yes|no
scenario() {
  lio_thin=1 lio_4kn=4 target_start lio 2 96 64 64 64
  echo 0 > "/run/configfs/target/core/fileio_$scenario_index/disk2/attrib/emulate_tpu"
  guest_create g "$variant" "$(disk qdisk xvda 1)" "$(disk qdisk xvdb 2)" "no-discard,$(disk qdisk xvdc 3)" "$(disk qdisk xvdd 4)"
  offers xvda yes
  offers xvdb no
  offers xvdc no
  guest_run g segments 10 '[ "$(cat /sys/block/xvda/queue/max_segments)" = 32 ]'

  guest_run g fill 120 'dd if=/dev/urandom of=/dev/xvda bs=1M count=90 conv=fsync 2> /dev/null'
  note "filled: $(backing_kib 1) KiB"
  [ "$(backing_kib 1)" -gt 90000 ] || fail "the LUN's file has only $(backing_kib 1) KiB"
  guest_run g mkfs 60 'mkfs.ext4 -q -F /dev/xvda'
  note "after mkfs: $(backing_kib 1) KiB"
  [ "$(backing_kib 1)" -lt 30000 ] || fail "mkfs has given nothing back: $(backing_kib 1) KiB"

  guest_run g sizes 10 '[ "$(cat /sys/block/xvdd/queue/logical_block_size) $(cat /sys/block/xvdd/queue/physical_block_size)" = "512 4096" ]'
  guest_start g sectors 'fio_verify xvdd 15 --bsrange=512-6k --blockalign=512'
  guest_start g trims 'mkdir -p /mnt/a && mount -t ext4 /dev/xvda /mnt/a && dd if=/dev/urandom of=/mnt/a/keep bs=1M count=16 2> /dev/null &&
    before=$(md5sum < /mnt/a/keep) && echo running && for turn in 1 2 3 4 5 6 7 8; do
      dd if=/dev/urandom of=/mnt/a/file bs=1M count=24 conv=fsync 2> /dev/null && rm /mnt/a/file && sync && fstrim /mnt/a || exit 1; done
    umount /mnt/a && mount -t ext4 /dev/xvda /mnt/a && [ "$before" = "$(md5sum < /mnt/a/keep)" ] && umount /mnt/a'
  guest_says g trims 60 running
  sleep 2
  cut_portal 1 drop
  sleep 5
  restore_portal 1
  guest_finish g trims 180
  guest_finish g sectors 60
  note "after fstrim: $(backing_kib 1) KiB"
  [ "$(backing_kib 1)" -lt 50000 ] || fail "fstrim has given nothing back: $(backing_kib 1) KiB"
  guest_shutdown g
  assert_nothing_left
}
