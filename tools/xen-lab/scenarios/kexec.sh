# A real kernel that gives way to another in the same domain. Linux has the second kernel in its memory (kexec_file_load), and ends
# with Xen's soft reset: the domain keeps its number and its memory, xl takes all its devices away and makes them anew. libxl does that
# for HVM guests only; it answers the soft reset of a PVH guest with "invalid", and xl ends the guest. PV guests have no kexec.
#   kexec     a reboot into the second kernel, which has closed its disks before
#   crash     a panic with writes under way at a target that does not answer: the second kernel has all that was acknowledged, and
#             what was under way does not undo what it writes
#   pvh       a PVH guest's panic into its second kernel: nothing is left of it
# runs on demand: trixie:-
# timeout: 1200
# steps: kexec crash pvh
options='console=hvc0 quiet mitigations=off'
kernel=$(echo /boot/vmlinuz-*)
guest_boot_s=240   # an HVM guest unpacks its kernel, and again the second one
# The guest's ramdisk with a second kernel and its ramdisk in it, and Perl, which can do any system call.
second_ramdisk() {
  local root=$scenario_dir/second
  mkdir -p "$root/second"
  cp "$kernel" "$root/second/kernel"
  cp /tmp/guest.cpio "$root/second/ramdisk"
  { (cd "$root" && find . | busybox cpio -o -H newc 2> /dev/null); cat "$(guest_ramdisk_with /usr/bin/perl)"; } > "$scenario_dir/disk.ramdisk"
  rm -rf "$root"
  echo "$scenario_dir/disk.ramdisk"
}
# kexec_file_load(kernel, ramdisk, command line): 0 for a reboot, 2 for a panic.
load() { # GUEST JOB 0|2 WORD
  guest_run "$1" "$2" 60 "perl -e 'open K, \"<\", \"/second/kernel\"; open R, \"<\", \"/second/ramdisk\"; my \$c = \"$options $4\\0\";
    syscall(320, fileno K, fileno R, length \$c, \$c, $3) == 0 or die \"kexec_file_load: \$!\\n\"'"
}
runs_kernel() { guest_run "$1" "kernel-$3" 20 "grep -qw $3 /proc/cmdline"; [ "$(domid "$1")" = "$2" ] || fail "the domain's number has changed"; } # GUEST DOMID WORD
create() { # GUEST hvm|pvh DISK_LINE...
  local settings="ramdisk = '$ramdisk'
extra = '$options crashkernel=256M first'"
  [ "$2" = pvh ] || settings+=$'\nvga = "none"\nvnc = 0\nsdl = 0'
  guest_kernel=$kernel guest_memory=700 guest_settings=$settings guest_create "$@"
}
numbers() { # GUEST JOB SCRIPT: a number for each block of write_generations, into the file JOB
  guest_run "$1" "$2" 30 "for n in 1 2 3 4 5 6 7 8; do echo \$($3); done"
  job_output "$1" "$2" | head -n 8 > "$scenario_dir/$2"
}
pairs_are_right() { # what is found is what was acknowledged last, or what was under way then
  paste "$scenario_dir/acknowledged" "$scenario_dir/found" | awk '
    NF != 2 || $1 < 1 || ($2 != $1 && $2 != $1 + 1) { print "acknowledged, found: " $0; bad = 1 } { lines++ } END { exit bad || lines != 8 }'
}
reboots() {
  local first before
  create g hvm "$(disk vbd3 xvda 1)" "$(disk qdisk xvde 2)"
  first=$(domid g)
  guest_run g marks 30 'leave_mark xvda && leave_mark xvde'
  before=$(grants_in_use "$first" | wc -l)
  load g load 0 second
  guest_start g kexec "sync; perl -e 'syscall(169, 0xfee1dead, 672274793, 0x45584543, 0)'"
  guest_up g 2
  runs_kernel g "$first" second
  guest_run g find 30 'find_mark xvda && find_mark xvde'
  guest_run g verify-a 60 'fio_verify xvda 5'
  guest_run g verify-e 60 'fio_verify xvde 5'
  note "grants in use: $before before, $(grants_in_use "$first" | wc -l) after"
  guest_shutdown g
  assert_nothing_left
}
crashes() {
  local first before
  create h hvm "$(disk vbd3 xvda 1)" "$(disk qdisk xvde 2)"
  first=$(domid h)
  guest_run h marks 30 'leave_mark xvde'
  before=$(grants_in_use "$first" | wc -l)
  load h load 2 second
  guest_start h generations 'write_generations xvda'
  guest_says h generations 20 writing
  nap 5
  kill -STOP "$(tgtd_pid)"
  nap 3
  numbers h acknowledged 'cat /tmp/acknowledged.$n'
  guest_start h crash 'echo c > /proc/sysrq-trigger'
  nap 10
  kill -CONT "$(tgtd_pid)"
  guest_up h 2
  runs_kernel h "$first" second
  guest_run h find 30 'find_mark xvde'
  numbers h found 'dd if=/dev/xvda bs=4096 skip=$((14336 + n)) count=1 iflag=direct 2> /dev/null | awk "{ print \$1; exit }"'
  pairs_are_right || fail "the second kernel does not have what was acknowledged"
  guest_start h again 'write_generations xvda'
  guest_says h again 20 writing
  nap 8
  guest_run h enough 20 'touch /tmp/enough'
  nap 8
  guest_run h check 20 'touch /tmp/check'
  guest_finish h again 30
  [ "$(job_output h again | grep '^old')" = 'old 0' ] || fail "a write of the former kernel has undone one of the second's"
  guest_run h verify-a 60 'fio_verify xvda 5'
  guest_run h verify-e 60 'fio_verify xvde 5'
  note "grants in use: $before before, $(grants_in_use "$first" | wc -l) after"
  guest_shutdown h
  assert_nothing_left
}
pvh_crashes() {
  local id
  create p pvh "$(disk qdisk xvda 1)"
  id=$(domid p)
  load p load 2 second
  begin_fio p fio 0
  guest_start p crash 'echo c > /proc/sysrq-trigger'
  wait_until 60 "xl ends the guest" is_gone "$(domain p)"
  cat "/var/log/xen/xl-$(domain p).log"
  grep -q 'reason code 5 is soft-reset' "/var/log/xen/xl-$(domain p).log" || fail "the guest has not ended with a soft reset"
  assert_nothing_left
  not grep -q "guest $id: .*xenstore knows neither" /tmp/results/iscsi-blkback.log || fail "a toolstack's end of a guest is taken for xenstored's"
}
scenario() {
  local ramdisk
  step kexec
  target_start tgt 2 64 64
  ramdisk=$(second_ramdisk)
  reboots
  step crash
  crashes
  step pvh
  pvh_crashes
}
