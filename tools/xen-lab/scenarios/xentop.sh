# xentop in dom0 shows what a guest reads and writes on a disk of kind vbd3, to the request and to the sector, from
# when it is attached until it is detached; a disk of kind qdisk beside it, for which xentop asks QEMU, it does not
# show. A guest's process that is killed leaves nothing in /dev/shm.
# runs: trixie:pv trixie:pvh
# Prints the numbers of the guest's disk xvdb (51728): "READS WRITES READ_SECTORS WRITTEN_SECTORS".
xentop_of_xvdb() {
  nap 1.5   # the numbers are written twice a second
  xentop -b -f -x -i 1 > "$scenario_dir/xentop" 2>&1 || fail "xentop fails"
  awk -v domain="$(domain g)" '
    $1 == "VBD" { if (here) { sub(/.*OO:/, "OO:"); print $4, $6, $8, $10 } next }
    { here = $1 == domain }' "$scenario_dir/xentop"
}
# The guest's totals in its line.
xentop_totals() { awk -v domain="$(domain g)" '$1 == domain { print $(NF - 6), $(NF - 4), $(NF - 3), $(NF - 2), $(NF - 1) }' "$scenario_dir/xentop"; }
# The guest reads 64 times 4 KiB and writes 32 times. (Of less than 4 KiB busybox has buffers at addresses from which
# the kernel does not write directly, and then writes by way of the page cache, in other pieces.)
reads_and_writes() { # JOB
  guest_run g "$1" 60 'dd if=/dev/xvdb of=/dev/null bs=4096 count=64 iflag=direct 2> /dev/null &&
    dd if=/dev/zero of=/dev/xvdb bs=4096 count=32 oflag=direct 2> /dev/null'
}
difference_is() { # BEFORE AFTER EXPECTED
  local b a found
  read -ra b <<< "$1"; read -ra a <<< "$2"
  [ "${#b[@]}" = 4 ] && [ "${#a[@]}" = 4 ] || { cat "$scenario_dir/xentop"; fail "xentop says '$1', then '$2'"; }
  found="$((a[0] - b[0])) $((a[1] - b[1])) $((a[2] - b[2])) $((a[3] - b[3]))"
  note "xentop: $1, then $2"
  [ "$found" = "$3" ] || { cat "$scenario_dir/xentop"; fail "xentop has counted $found and not $3"; }
}
file_of_xvdb() {
  local pid
  pid=$(xenstore-read "/local/domain/0/backend/vbd3/$(domid g)/51728/kthread-pid") || fail "the disk has no kthread-pid"
  echo "/dev/shm/td3-$pid/vbd-$(domid g)-51728"
}
scenario() {
  local before after file
  target_start tgt 2
  guest_create g "$variant" "$(disk qdisk xvda 1)" "$(disk vbd3 xvdb 2)"
  guest_run g ready 60 'wait_disk xvda && wait_disk xvdb'
  before=$(xentop_of_xvdb)
  reads_and_writes first
  after=$(xentop_of_xvdb)
  difference_is "$before" "$after" '64 32 512 256'
  [ "$(xentop_totals)" = "1 $after" ] || { cat "$scenario_dir/xentop"; fail "the guest's line says $(xentop_totals)"; }

  file=$(file_of_xvdb)
  [ -f "$file" ] || fail "there is no $file"
  detach g xvdb || fail "xl block-detach failed: $(cat "$scenario_dir/detach.log")"
  wait_until 20 "the file goes with the disk" not test -e "$file"
  attach g "$(disk vbd3 xvdb 2)" || fail "xl block-attach failed: $(cat "$scenario_dir/attach.log")"
  guest_run g again 60 'wait_disk xvdb'
  before=$(xentop_of_xvdb)
  reads_and_writes second
  difference_is "$before" "$(xentop_of_xvdb)" '64 32 512 256'

  file=$(file_of_xvdb)
  kill -KILL "$(basename "$(dirname "$file")" | cut -d- -f2)"
  wait_until 20 "what the killed process has left is removed" not test -e "$(dirname "$file")"
  guest_destroy g
  assert_nothing_left
}
