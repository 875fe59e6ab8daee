# Functions for the scripts that scenarios run inside a guest (busybox sh).

# Waits for a disk to appear, or to go.
wait_disk() { tries=0; while [ ! -b "/dev/$1" ]; do tries=$((tries + 1)); [ $tries -lt 600 ] || { echo "/dev/$1 did not appear"; return 1; }; usleep 100000; done; } # VDEV
wait_no_disk() { tries=0; while [ -b "/dev/$1" ]; do tries=$((tries + 1)); [ $tries -lt 600 ] || { echo "/dev/$1 did not go away"; return 1; }; usleep 100000; done; } # VDEV

# The kernel modules that guest_ramdisk_with has brought along.
load_modules() { for module in $(cat /modules/more); do insmod "/modules/$module" 2> /dev/null; done; }

# mkfs, mount, a file with a checksum written, unmounted and read again.
check_filesystem() { # VDEV
  wait_disk "$1" || return
  mkdir -p "/mnt/$1"
  mkfs.ext4 -q -F "/dev/$1" || { echo "mkfs failed"; return 1; }
  mount -t ext4 "/dev/$1" "/mnt/$1" || { echo "mount failed"; return 1; }
  dd if=/dev/urandom of="/mnt/$1/file" bs=64k count=32 2> /dev/null || { echo "write failed"; return 1; }
  before=$(md5sum < "/mnt/$1/file")
  umount "/mnt/$1" || { echo "umount failed"; return 1; }
  mount -t ext4 "/dev/$1" "/mnt/$1" || { echo "second mount failed"; return 1; }
  after=$(md5sum < "/mnt/$1/file")
  umount "/mnt/$1"
  [ "$before" = "$after" ] || { echo "the file changed: $before, $after"; return 1; }
  echo "file system on $1 ok"
}

# fio writes at random and reads everything back, for about so many seconds; any wrong byte or I/O
# error makes it fail. More fio arguments may follow. Its rate is limited, so that many guests can
# run side by side in an emulator; fio_iops=0 lifts the limit.
fio_verify() { # VDEV SECONDS [FIO_ARGUMENT]...
  vdev=$1 seconds=$2; shift 2
  rm -f /tmp/stopped
  wait_disk "$vdev" || return
  echo running
  fio --name="$vdev" --filename="/dev/$vdev" --rw=randwrite --bsrange=4k-64k --size=32M --ioengine=libaio \
    --direct=1 --iodepth=8 --verify=crc32c --verify_backlog=8 --verify_fatal=1 --verify_state_save=0 \
    --rate_iops="${fio_iops:-50}" --time_based --runtime="$seconds" --thread --minimal --output="/tmp/fio.$vdev" "$@" ||
    [ -f /tmp/stopped ] ||
    { cat "/tmp/fio.$vdev"; echo "fio on $vdev failed"; return 1; }
  # Of fio's terse report: error, KiB written, KiB read. Lines of other kinds may stand around it.
  awk -F';' 'NF > 46 { seen = 1; printf "fio: error %d, %d KiB written, %d KiB read back\n", $5, $47, $6; bad = $5 != 0 || $47 == 0 || $6 == 0 }
    END { exit bad || !seen }' "/tmp/fio.$vdev"
}

# A number in the last sectors of a disk, to be found again after a reboot.
leave_mark() { wait_disk "$1" && echo "mark of $1" | dd of="/dev/$1" bs=512 seek=120000 conv=sync,fsync 2> /dev/null; } # VDEV
find_mark() { wait_disk "$1" && dd if="/dev/$1" bs=512 skip=120000 count=1 2> /dev/null | grep -qa "^mark of $1\$"; } # VDEV

# A disk that has grown: its size, and its last sectors written and read back.
wait_size() { tries=0; while [ "$(cat "/sys/block/$1/size")" != "$2" ]; do tries=$((tries + 1)); [ $tries -lt 300 ] || { echo "/dev/$1 still has $(cat "/sys/block/$1/size") sectors"; return 1; }; usleep 100000; done; echo "/dev/$1 has $2 sectors"; } # VDEV SECTORS
check_end() { # VDEV
  last=$(($(cat "/sys/block/$1/size") - 8))
  dd if=/dev/urandom of=/tmp/end bs=512 count=8 2> /dev/null
  dd if=/tmp/end of="/dev/$1" bs=512 seek=$last conv=fsync 2> /dev/null || { echo "the end cannot be written"; return 1; }
  echo 3 > /proc/sys/vm/drop_caches
  dd if="/dev/$1" bs=512 skip=$last count=8 2> /dev/null | cmp - /tmp/end
}

### Measuring what a guest sees of an event outside

# Time on the clock that fio's log uses too (CLOCK_MONOTONIC, in ms).
mark() { echo "$1 $(awk '{ print int($1 * 1000) }' /proc/uptime)" >> /tmp/marks; } # NAME

# fio as in fio_verify, until stop_fio, with every request's latency in a log.
measured_fio() { # VDEV
  fio_iops=0 fio_verify "$1" 600 --write_lat_log=/tmp/latency --log_alternate_epoch=1 --log_alternate_epoch_clock_id=1
}

# fio ends with a status of its own then; its report still counts the errors.
stop_fio() { touch /tmp/stopped; killall -INT fio; }

# Prints, for the time before, during and after the cut: requests per second, MiB/s, and the longest
# time that any request took; then the totals. "key value" per line.
report_fio() { # VDEV
  awk -v marks="$(tr '\n' ' ' < /tmp/marks)" -F', *' '
    BEGIN {
      split(marks, m, " "); for (i = 1; i in m; i += 2) at[m[i]] = m[i + 1]
    }
    {
      if (!first || $1 < first) first = $1
      if ($1 > last) last = $1
      phase = $1 < at["cut"] ? "before" : $1 < at["back"] ? "during" : "after"
      requests[phase]++; bytes[phase] += $4
      ms = $2 / 1e6; if (ms > worst[phase]) worst[phase] = ms; if (ms > longest) longest = ms
    }
    END {
      seconds["before"] = (at["cut"] - first) / 1000
      seconds["during"] = (at["back"] - at["cut"]) / 1000
      seconds["after"] = (last - at["back"]) / 1000
      split("before during after", order, " ")
      for (i = 1; i <= 3; i++) {
        p = order[i]; s = seconds[p] > 0 ? seconds[p] : 1
        printf "%s_seconds %.1f\n%s_iops %.0f\n%s_mib_per_s %.2f\n%s_longest_ms %.0f\n",
          p, seconds[p], p, requests[p] / s, p, bytes[p] / s / 1048576, p, worst[p]
      }
      printf "longest_stall_ms %.0f\n", longest
    }' /tmp/latency_lat.1.log
  awk -F';' 'NF > 46 { printf "written_kib %d\nverified_kib %d\nerrors %d\n", $47, $6, $5 }' "/tmp/fio.$1"
}

# For the longest stalls of many events in one run: a job that reads and one that writes and compares what it
# reads back, each 4 KiB at depth 4, until stop_fio. Each request's latency is logged.
stalls_fio() { # VDEV
  rm -f /tmp/stopped /tmp/marks
  common="--filename=/dev/$1 --bs=4k --ioengine=libaio --direct=1 --iodepth=4 --time_based --runtime=900 --verify_fatal=1
    --log_alternate_epoch=1 --log_alternate_epoch_clock_id=1 --rate_iops=60 --thread --minimal"
  echo running
  fio --name=reads $common --rw=randread --offset=40M --size=8M --write_lat_log=/tmp/reads --output=/tmp/fio.reads &
  fio --name=writes $common --rw=randwrite --size=32M --verify=crc32c --verify_backlog=8 --verify_state_save=0 \
    --write_lat_log=/tmp/writes --output=/tmp/fio.writes
  [ -f /tmp/stopped ] || killall -INT fio   # wrong data or an error: that is the end
  wait $!
  [ -f /tmp/stopped ] || { cat /tmp/fio.reads /tmp/fio.writes; return 1; }
}
# For each event, from its mark to the next one's, the requests that were issued in it:
# "stall EVENT reads|writes COUNT P50 P99 P99.9 LONGEST", in ms; then the errors.
report_stalls() {
  awk -F', *' '
    function event(at, i) { for (i = events; i > 0 && at < from[i]; i--); return i }
    BEGIN { while ((getline line < "/tmp/marks") > 0) { split(line, m, " "); name[++events] = m[1]; from[events] = m[2] } }
    { ms = $2 / 1e6; i = event($1 - ms); if (i) printf "%d %s %s %.1f\n", i, name[i], $3 == 0 ? "reads" : "writes", ms }
  ' /tmp/reads_lat.1.log /tmp/writes_lat.1.log | sort -k1,1n -k3,3 -k4,4n | awk '
    function rank(share, r) { r = int(share * n); return ms[r < share * n || r < 1 ? r + 1 : r] }
    function row() { if (n) printf "stall %s %d %.0f %.0f %.0f %.0f\n", of, n, rank(0.5), rank(0.99), rank(0.999), ms[n] }
    $2 " " $3 != of { row(); of = $2 " " $3; n = 0 }
    { ms[++n] = $4 }
    END { row() }'
  awk -F';' 'NF > 46 { seen++; errors += ($5 != 0); kib += $6 + $47 }
    END { printf "errors %d\nkib %d\n", errors + 2 - seen, kib }' /tmp/fio.reads /tmp/fio.writes
}

# The same for all marks of one name together, reads and writes: "together NAME COUNT P50 P99 P99.9 LONGEST".
report_together() {
  awk -F', *' '
    function event(at, i) { for (i = events; i > 0 && at < from[i]; i--); return i }
    BEGIN { while ((getline line < "/tmp/marks") > 0) { split(line, m, " "); name[++events] = m[1]; from[events] = m[2] } }
    { ms = $2 / 1e6; i = event($1 - ms); if (i) printf "%s %.1f\n", name[i], ms }
  ' /tmp/reads_lat.1.log /tmp/writes_lat.1.log | sort -k1,1 -k2,2n | awk '
    function rank(share, r) { r = int(share * n); return ms[r < share * n || r < 1 ? r + 1 : r] }
    function row() { if (n) printf "together %s %d %.1f %.1f %.1f %.1f\n", of, n, rank(0.5), rank(0.99), rank(0.999), ms[n] }
    $1 != of { row(); of = $1; n = 0 }
    { ms[++n] = $2 }
    END { row() }'
}

# Eight writers, each with a block of its own behind what stalls_fio uses: each writes its block again and again, with
# a number one higher, until /tmp/enough. Prints how many blocks have an older content then, by "old COUNT".
write_generations() { # VDEV
  rm -f /tmp/enough
  for block in 1 2 3 4 5 6 7 8; do generations_of "$1" $block & done
  echo writing
  wait
  while [ ! -f /tmp/check ]; do usleep 100000; done
  old=0
  for block in 1 2 3 4 5 6 7 8; do
    read -r acknowledged < /tmp/acknowledged.$block
    found=$(dd if="/dev/$1" bs=4096 skip=$((14336 + block)) count=1 iflag=direct 2> /dev/null | awk '{ print $1; exit }')
    echo "block $block: $acknowledged acknowledged, $found found"
    [ "$found" = "$acknowledged" ] || old=$((old + 1))
  done
  echo "old $old"
}
generations_of() { # VDEV BLOCK
  number=0
  while [ ! -f /tmp/enough ]; do
    number=$((number + 1))
    printf '%-4096d' $number | dd of="/dev/$1" bs=4096 seek=$((14336 + $2)) oflag=direct iflag=fullblock conv=notrunc 2> /dev/null ||
      { echo "error of block $2"; return 1; }
    echo $number > "/tmp/acknowledged.$2"
  done
}
