# A disk of dom0 itself, by `xl block-attach 0`: partitioned, a file system made and mounted, a path lost under fio, and
# the files back after it was detached and attached again.
# runs on demand: trixie:- bookworm:-
# timeout: 400
# libxl refuses a qdisk for dom0 unless it knows a device model there, which Debian's init starts but does not name.
name_the_device_model() {
  xenstore-exists /local/domain/0/image/device-model-pid ||
    xenstore-write /local/domain/0/image/device-model-pid "$(cat /run/qemu-dom0.pid)"
}
dom0_attach() {
  xl block-attach 0 "$(disk qdisk xvdz 1)" > "$scenario_dir/attach.log" 2>&1 || fail "xl block-attach 0 failed: $(cat "$scenario_dir/attach.log")"
  wait_until 40 "dom0 has /dev/xvdz" [ -b /dev/xvdz ]
}
dom0_detach() {
  timeout $((60 * patience)) xl block-detach 0 xvdz > "$scenario_dir/detach.log" 2>&1 || fail "xl block-detach 0 failed: $(cat "$scenario_dir/detach.log")"
  wait_until 30 "/dev/xvdz is gone" [ ! -b /dev/xvdz ]
  wait_until 30 "no process serves dom0" has_no_child 0
  wait_until 20 "no session is left at the target" has_no_sessions
}
# One Linux partition from sector 2048 on, of 48 MiB.
write_partition_table() {
  {
    head -c 446 /dev/zero
    printf '\x80\0\0\0\x83\xfe\xff\xff\x00\x08\0\0\x00\x80\x01\0'
    head -c 48 /dev/zero
    printf '\x55\xaa'
  } | dd of=/dev/xvdz bs=512 count=1 iflag=fullblock conv=fsync 2> /dev/null || fail "the partition table cannot be written"
  blockdev --rereadpt /dev/xvdz || fail "dom0 does not read the partition table again"
}
mounted() { wait_until 10 "dom0 has /dev/xvdz1" [ -b /dev/xvdz1 ]; mkdir -p "$scenario_dir/mnt"; mount /dev/xvdz1 "$scenario_dir/mnt" || fail "mount failed"; }
scenario() {
  local sum
  modprobe xen-blkfront || fail "dom0's kernel has no blkfront"
  name_the_device_model
  target_start tgt 2
  dom0_attach
  write_partition_table
  wait_until 10 "dom0 has /dev/xvdz1" [ -b /dev/xvdz1 ]
  mkfs.ext4 -q -F /dev/xvdz1 || fail "mkfs failed"
  mounted
  dd if=/dev/urandom of="$scenario_dir/mnt/file" bs=64k count=320 conv=fsync 2> /dev/null || fail "the file cannot be written"
  sum=$(md5sum < "$scenario_dir/mnt/file")
  umount "$scenario_dir/mnt" || fail "umount failed"
  dom0_detach
  dom0_attach
  wait_until 10 "dom0 has /dev/xvdz1" [ -b /dev/xvdz1 ]
  e2fsck -fn /dev/xvdz1 || fail "fsck finds faults"
  mounted
  [ "$(md5sum < "$scenario_dir/mnt/file")" = "$sum" ] || fail "the file is another one"
  cut_portal 1 drop
  fio --name=d --directory="$scenario_dir/mnt" --rw=randwrite --bs=4k --size=4M --direct=1 --ioengine=libaio --iodepth=8 \
    --verify=crc32c --verify_fatal=1 --minimal > "$scenario_dir/fio" 2>&1 || fail "fio: $(tail -3 "$scenario_dir/fio")"
  restore_portal 1
  umount "$scenario_dir/mnt" || fail "umount failed"
  dom0_detach
}
