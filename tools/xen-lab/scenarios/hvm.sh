# The firmware (SeaBIOS) of an HVM guest boots from our disk: its device model has the disk from the guest's process by NBD, before
# any PV driver. A boot sector reads 32 KiB by INT 13h again and again, compares their sum, and writes a sector. Meanwhile
#   paths     one path is lost, and restored
#   kill      the guest's process is killed; QEMU goes on with the next one
#   save      xl save, which has QEMU flush the disk of a suspended guest, and xl restore
#   end       all is read, a sector is written; then xl destroy, after which QEMU is gone at once
# runs on demand: trixie:-
# steps: paths kill save end
# timeout: 600
#
# The boot sector, as `as --32` makes it of .code16: it sums the words of sectors 1 to 64 (INT 13h, AH=42h) 100 times, each time
# compares with the word at 508 and says so on COM1; then writes itself to sector 200 (AH=43h). Where it keeps the drive's number,
# its byte 236, that differs.
boot_sector() {
  cat <<'END'
fafc31c08ed88ed0bc007cfb8816ec7cbe9d7ce85100bd6400be7d7c8a16ec7c
b442cd137238b800108ec031ff31dbb9004026031d4747e2f93b1efc7d751fbe
b37ce822004d75d1be8d7c8a16ec7cb80043cd137208bed57ce80b00eb06bebf
7ce80300f4ebfdac84c0741050bafd03eca82074fb58baf803eeebebc3100040
0000000010010000000000000010000100007c0000c800000000000000736563
746f722030206f66206f7572206469736b0a00726561642072696768740a0072
6561642077726f6e67206f72206661696c65640a00616c6c20726561642c206f
6e65207772697474656e0a00
END
}
put() { dd of="$scenario_dir/disk.1" bs=1 seek="$1" conv=notrunc 2> /dev/null; } # OFFSET
bytes_of() { sed 's/../\\x&/g' | tr -d '\n'; } # of hexadecimal digits, for printf
make_disk() {
  local sum
  truncate -s 64M "$scenario_dir/disk.1"
  dd if=/dev/urandom of="$scenario_dir/disk.1" bs=512 seek=1 count=64 conv=notrunc 2> /dev/null
  sum=$(od -An -v -tu2 -w2 -j512 -N32768 "$scenario_dir/disk.1" | awk '{ n = (n + $1) % 65536 } END { print n }')
  # shellcheck disable=SC2059
  printf "$(boot_sector | bytes_of)" | put 0
  # shellcheck disable=SC2059
  printf "$(printf '%02x%02x55aa' $((sum % 256)) $((sum / 256)) | bytes_of)" | put 508
}
# A device model begins the file anew.
said() { cat "$serial.before" "$serial" 2> /dev/null | grep -ac "$1" || true; } # LINE
says() { [ "$(said "$1")" -ge "${2:-1}" ]; } # LINE [TIMES]
socket_of() { xenstore-read "$(backend_node g xvda)/physical-device-path"; }
device_model() { pgrep -f "^[^ ]*qemu-system[^ ]* -xen-domid $1 "; } # DOMID
device_model_has_it() { tr '\0' ' ' < "/proc/$(device_model "$(domid g)")/cmdline" | grep -qF "nbd+unix:///?socket=$(socket_of)"; }
reads() { said 'read right'; }
reads_on() { # after what was COUNT
  wait_until 120 "it reads on" says 'read right' $(($1 + 5))
}
scenario() {
  local file=$scenario_dir/g.cfg try socket pid before count
  serial=$scenario_dir/serial
  network_start 2
  make_disk
  tgt_start 2 1
  cat > "$file" <<END
name = '$(domain g)'
type = 'hvm'
memory = 128
vcpus = 1
vga = 'none'
vnc = 0
sdl = 0
serial = 'file:$serial'
on_crash = 'destroy'
disk = [ '$(disk vbd3 xvda 1)' ]
END
  note "xl create of an HVM guest"; cat "$file"
  for try in $(seq "$patience"); do
    xl create "$file" > "$scenario_dir/xl.log" 2>&1 && break
    cat "$scenario_dir/xl.log" "/var/log/xen/qemu-dm-$(domain g).log" 2> /dev/null
    [ "$try" -lt "$patience" ] && grep -q 'rc=-9' "$scenario_dir/xl.log" || fail "xl create failed"
  done
  domid g >> "$scenario_dir/domids"
  socket=$(socket_of) || fail "there is no physical-device-path"
  note "physical-device-path = $socket"
  socket=${socket%%,*}
  [ "$(stat -c %a "$socket")" = 600 ] || fail "others may open $socket"
  device_model_has_it || fail "the device model's command line has no NBD socket of ours"
  wait_until 90 "the firmware has started the boot sector of our disk" says 'sector 0 of our disk'
  reads_on 0
  step paths
  cut_portal 1 drop
  reads_on "$(reads)"
  restore_portal 1
  step kill
  pid=$(guest_processes "$(domid g)" | head -n 1)
  [ -n "$pid" ] || fail "no process serves the guest"
  count=$(reads)
  kill -KILL "$pid"
  reads_on "$count"
  step save
  before=$(device_model "$(domid g)")
  timeout $((120 * patience)) xl save "$(domain g)" "$scenario_dir/g.save" || fail "xl save failed"
  [ ! -e "/proc/$before" ] || fail "the saved guest's device model is still there"
  [ ! -e "$socket" ] || fail "$socket is left"
  cp "$serial" "$serial.before"
  count=$(reads)
  rm "$serial"
  timeout $((120 * patience)) xl restore "$scenario_dir/g.save" || fail "xl restore failed"
  domid g >> "$scenario_dir/domids"
  rm -f "$scenario_dir/g.save"
  device_model_has_it || fail "the restored guest's device model has no NBD socket of ours"
  reads_on "$count"
  step end
  wait_until 180 "all is read, and a sector written" says 'all read, one written'
  says 'read right' 100 || fail "it has not read 100 times"
  says 'read wrong or failed' && fail "something was read wrong"
  cmp -n 236 -i 0:$((200 * 512)) "$scenario_dir/disk.1" "$scenario_dir/disk.1" || fail "the LUN has not the sector that was written"
  socket=$(socket_of); socket=${socket%%,*}
  before=$(device_model "$(domid g)")
  guest_destroy g
  wait_until 10 "the device model has ended" not test -e "/proc/$before"
  assert_nothing_left
  [ ! -e "$socket" ] || fail "$socket is left"
  assert_no_kernel_path
}
