# A guest whose kernel is on its own disk: GRUB's small frontend reads configuration, kernel and initramfs from there, then gives
# the disk to the kernel's. One path is lost while GRUB reads.
# runs on demand: trixie:pv trixie:pvh bookworm:pv
# timeout: 600
grub() { case $variant in pv) echo /usr/lib/grub-xen/grub-x86_64-xen.bin ;; pvh) echo /usr/lib/grub-xen/grub-i386-xen_pvh.bin ;; esac; }
# Small: GRUB reads 4 KiB at a time.
make_disk() {
  local root=$scenario_dir/root guest=$scenario_dir/small-guest
  mkdir -p "$root/boot/grub" "$guest"/{bin,dev,proc,sys,tmp,mnt,lab,modules}
  cp /usr/bin/busybox "$guest/bin/"
  cp /payload/guest/lib.sh "$guest/lab/guest.sh"
  install -m 755 /payload/guest/init "$guest/init"
  stage_modules "$guest/modules" order xen_blkfront
  (cd "$guest" && find . | busybox cpio -o -H newc 2> /dev/null) | gzip -1 > "$root/boot/initrd"
  # GRUB's PV image does not unpack a kernel that was packed with zstd, as Debian 13's is.
  if [ "$variant" = pv ] && grep -q '^CONFIG_KERNEL_ZSTD=y' /boot/config-*; then gzip -1 < /lab/vmlinux > "$root/boot/vmlinuz"
  else cp /boot/vmlinuz-* "$root/boot/vmlinuz"; fi
  cat > "$root/boot/grub/grub.cfg" <<'END'
set timeout=0
echo "grub.cfg of our disk"
linux /boot/vmlinuz console=hvc0 quiet mitigations=off
initrd /boot/initrd
boot
END
  mkfs.ext4 -q -F -O ^metadata_csum,^64bit -d "$root" "$scenario_dir/disk.1" || fail "mkfs of GRUB's disk failed"
  rm -rf "$root" "$guest"
}
# Not at the beginning of a line: GRUB leaves its progress before it.
guest_has_come_up() { grep -aqF '[guest] up' "$(console_of g)"; }
grub_reads() { grep -aq 'grub.cfg of our disk' "$(console_of g)" 2> /dev/null; }
scenario() {
  network_start 2
  truncate -s 64M "$scenario_dir/disk.1"
  make_disk
  tgt_start 2 1
  guest_kernel=$(grub)
  note "xl create of a guest with the kernel $guest_kernel"
  xl create "$(guest_memory=400 guest_config g "$variant" "$(disk qdisk xvda 1)")" || fail "xl create failed"
  domid g >> "$scenario_dir/domids"
  wait_until 60 "GRUB has read its configuration" grub_reads
  cut_portal 1 drop
  wait_until 180 "guest g is up" guest_has_come_up
  restore_portal 1
  # dd and no file system: its module is not in the small initramfs.
  guest_run g io 60 'wait_disk xvda && dd if=/dev/urandom of=/tmp/x bs=64k count=20 2> /dev/null && dd if=/tmp/x of=/dev/xvda bs=64k seek=980 conv=fsync 2> /dev/null && echo 3 > /proc/sys/vm/drop_caches && dd if=/dev/xvda bs=64k skip=980 count=20 2> /dev/null | cmp - /tmp/x'
  guest_shutdown g
  assert_nothing_left
  assert_no_kernel_path
}
