# The words that a lab scenario is written in. Sourced by every file in scenarios/, inside dom0; the
# host's scripts source it too, only to list the scenarios.
#
# A scenario is a file scenarios/NAME.sh. Its head says where it runs and how long it may take:
#   # runs: trixie:pv trixie:pvh bookworm:pv      one run per SUITE:VARIANT; `-` for no variant
#   # tools/test runs: bookworm:pv                of these what is among half an hour's tests
#   # timeout: 120                                seconds (on a slow machine a multiple), default 300
#   # steps: verify outage                        a long one, cut into parts that pass or fail by name
#   # runs on demand: bookworm:-                  not in the suite: too long, runs when it is named
#   # wants: kernel-stack                         open-iscsi and multipath-tools, of build --kernel-stack
#   # runs alone: its reason                      after all others, with nothing beside it: it changes dom0 itself
# and it defines a function `scenario`, which passes when it returns; with steps it calls `step NAME`
# where each begins. It may define `service_settings` and `service_top_settings`, which print what it wants in the service's
# configuration file. Everything a scenario makes (its
# guests, its target, its network) is its own and is taken away after it, whether it passed or not,
# so that scenarios run side by side and one that fails does not spoil the next. Only the service
# under test is shared by all.

harness_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

header() { sed -n "s|^# $2: *||p" "$1"; } # FILE KEY

# Prints the names of a suite's scenarios: NAME, or NAME.VARIANT.
list_scenarios() { # SUITE ['runs on demand' | 'tools/test runs']
  local file run
  for file in "$harness_dir"/scenarios/*.sh; do
    for run in $(header "$file" "${2:-runs}"); do
      [ "${run%%:*}" = "$1" ] || continue
      run=${run#*:}; [ "$run" = - ] && run='' || run=.$run
      echo "$(basename "$file" .sh)$run"
    done
  done
}
# Prints the names of the results that a scenario gives: its own, or one per step.
list_results() { # NAME
  local step steps
  steps=$(header "$harness_dir/scenarios/${1%%.*}.sh" steps)
  [ -n "$steps" ] || echo "$1"
  for step in $steps; do echo "$1.$step"; done
}
[ "${1:-}" != list ] || return 0

### What a scenario can rely on, and how it ends #################################################

# Set by main: patience (a factor for every wait on a slow machine), suite, stock (true: the harness tries itself on Xen's stock backends), scenario_name,
# scenario_index (its own number, for addresses and names), scenario_dir (its scratch and results).

note() { echo "$(cut -d' ' -f1 /proc/uptime) $*"; }
tell() { note "$*"; echo "scenario $scenario_name: $*" >&5; }   # for the person who watches
fail() { note "FAIL: $*"; echo "$*" > "$scenario_dir/reason"; exit 1; }
# Begins the next of a scenario's steps; the one before it has passed.
step() { note "--- step $1"; echo "$1" >> "$scenario_dir/steps"; } # NAME

# Runs a command again and again until it succeeds; the only way in which scenarios wait.
wait_until() { # SECONDS WHAT COMMAND...
  local seconds=$(($1 * patience)) what=$2 end nap_s=0.3; shift 2
  end=$((SECONDS + seconds))
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || fail "waited $seconds s in vain: $what"
    nap $nap_s
    nap_s=0.8
  done
}
# A short sleep without a process: under emulation each one costs tens of milliseconds of processor
# time, which the guests need. (Reads from a pipe that nobody writes to.)
nap() { [ -n "${nap_fd:-}" ] || exec {nap_fd}<> <(:); read -rt "$1" -u "$nap_fd" || true; } # SECONDS
not() { ! "$@"; }

### The target and the links to it ###############################################################
# The target lives in a network namespace; portal N is 10.INDEX.N.1:3260 there, at the end of a veth
# pair of its own, so that each link can be cut alone, in the target's half: the initiator's host
# sees only what a real network would show it.

target_iqn() { echo "iqn.2026-01.lab:$scenario_index"; }
portal() { echo "10.$scenario_index.$1.1"; } # N
target_ns() { nsenter --net="/run/netns/t$scenario_index" -- "$@"; }
tgt() { TGT_IPC_SOCKET=$scenario_dir/tgtd.socket target_ns tgtadm -C 0 --lld iscsi "$@"; }

network_start() { # PORTALS
  local n ns=t$scenario_index
  ip netns add "$ns"
  ip -n "$ns" link set lo up
  for n in $(seq "$1"); do
    ip link add "v$scenario_index.$n" type veth peer name "p$n" netns "$ns"
    ip addr add "10.$scenario_index.$n.2/24" dev "v$scenario_index.$n"
    ip -n "$ns" addr add "$(portal "$n")/24" dev "p$n"
    ip link set "v$scenario_index.$n" up
    ip -n "$ns" link set "p$n" up
  done
}

# A target with one LUN per size; LUN n is LUN number n, its file $scenario_dir/disk.n.
target_start() { # tgt|lio|lio-groups PORTALS [SIZE_MIB]...
  local kind=$1 portals=$2 lun=0 size; shift 2
  [ $# -gt 0 ] || set -- 64 64
  network_start "$portals"
  for size; do
    lun=$((lun + 1))
    truncate -s "${size}M" "$scenario_dir/disk.$lun"
  done
  case $kind in
    tgt) tgt_start "$portals" "$lun" ;;
    lio) lio_start one "$portals" "$lun" ;;        # every portal in one portal group
    lio-groups) lio_start many "$portals" "$lun" ;; # a portal group for each portal
    *) fail "unknown kind of target $kind" ;;
  esac
  note "target $kind $(target_iqn) up, $portals portals, $lun LUNs"
}

# The target of the benchmarks, on dom0's loopback, with LUN 1; OPTIONS: see null_target --help.
null_port() { echo $((4000 + scenario_index)); }
null_target_start() { # OPTION...
  : > "$scenario_dir/null_target.log"
  /usr/libexec/iscsi-blkback/null_target --port "$(null_port)" --name "$(target_iqn)" --lun 1 --size 64 "$@" \
    > "$scenario_dir/null_target.log" 2>&1 &
  echo $! > "$scenario_dir/null_target.pid"
  wait_until 20 "the null target listens" grep -q '^iscsi://' "$scenario_dir/null_target.log"
}
null_disk() { disk_of qdisk "$1" "iscsi://127.0.0.1:$(null_port)/$(target_iqn)/1"; } # VDEV
tgt_start() { # PORTALS LUNS
  local n
  TGT_IPC_SOCKET=$scenario_dir/tgtd.socket target_ns tgtd -f -C 0 --iscsi "portal=$(portal 1):3260" \
    > "$scenario_dir/tgtd.log" 2>&1 &
  echo $! > "$scenario_dir/tgtd.pid"
  wait_until 20 "tgtd answers" tgt --mode system --op show > /dev/null 2>&1
  for n in $(seq 2 "$1"); do tgt --mode portal --op new --param "portal=$(portal "$n"):3260"; done
  tgt --mode target --op new --tid 1 -T "$(target_iqn)" || fail "tgtd refuses the target"
  for n in $(seq "$2"); do
    tgt --mode logicalunit --op new --tid 1 --lun "$n" -b "$scenario_dir/disk.$n" || fail "tgtd refuses LUN $n"
    tgt --mode logicalunit --op update --tid 1 --lun "$n" \
      --params "scsi_id=lab-$scenario_index-$n,scsi_sn=SN$scenario_index-$n"
  done
  tgt --mode target --op bind --tid 1 -I ALL
}

# A second tgtd, like another member of an array: at a portal that is its own it serves a disk as LUN 1.
other_tgt() { TGT_IPC_SOCKET=$scenario_dir/other.socket target_ns tgtadm -C 1 --lld iscsi "$@"; }
other_tgt_start() { # N [DISK]
  local disk=${2:-1}
  TGT_IPC_SOCKET=$scenario_dir/other.socket target_ns tgtd -f -C 1 --iscsi "portal=$(portal "$1"):3260" > "$scenario_dir/other.log" 2>&1 &
  echo $! > "$scenario_dir/other.pid"
  wait_until 20 "the second tgtd answers" other_tgt --mode system --op show > /dev/null 2>&1
  other_tgt --mode target --op new --tid 1 -T "$(target_iqn)"
  other_tgt --mode logicalunit --op new --tid 1 --lun 1 -b "$scenario_dir/disk.$disk" || fail "the second tgtd refuses the LUN"
  other_tgt --mode logicalunit --op update --tid 1 --lun 1 --params "scsi_id=lab-$scenario_index-$disk,scsi_sn=SN$scenario_index-$disk"
  other_tgt --mode target --op bind --tid 1 -I ALL
}
# From now on the first one sends whoever logs in to a portal of the second.
tgt_redirect() { # N
  tgt --mode target --op update --tid 1 --name RedirectAddress --value "$(portal "$1")" &&
    tgt --mode target --op update --tid 1 --name RedirectPort --value 3260 &&
    tgt --mode target --op update --tid 1 --name RedirectReason --value Temporary || fail "tgtd refuses to redirect"
}

# The process of the scenario's tgtd, also where it was started through a shell.
tgtd_pid() {
  local pid
  for pid in $(ip netns pids "t$scenario_index"); do
    [ "$(cat "/proc/$pid/comm" 2> /dev/null)" != tgtd ] || { echo "$pid"; return; }
  done
}

# LIO by configfs alone: targetcli would want dbus. With lio_backing=loop its LUNs are on block devices, which can grow.
lio_start() { # one|many PORTALS LUNS
  local config=/run/configfs/target iqn device n group groups=1 backing
  modprobe -a target_core_mod target_core_file iscsi_target_mod
  mkdir -p /run/configfs
  mountpoint -q /run/configfs || mount -t configfs configfs /run/configfs || mountpoint -q /run/configfs
  mkdir -p $config/iscsi /var/target/pr   # where LIO keeps registrations; without it it refuses them
  iqn=$config/iscsi/$(target_iqn)
  [ "$1" = one ] || groups=$2
  for group in $(seq "$groups"); do
    mkdir -p "$iqn/tpgt_$group"
    for n in 'authentication 0' 'generate_node_acls 1' 'demo_mode_write_protect 0' 'cache_dynamic_acls 1'; do
      echo "${n#* }" > "$iqn/tpgt_$group/attrib/${n% *}"
    done
    echo 262144 > "$iqn/tpgt_$group/param/MaxRecvDataSegmentLength"
  done
  for n in $(seq "$3"); do
    device=$config/core/fileio_$scenario_index/disk$n
    mkdir -p "$device"
    backing=$scenario_dir/disk.$n
    if [ "${lio_backing:-file}" = loop ]; then
      modprobe loop
      backing=$(losetup -f --show "$backing") || fail "there is no loop device for LUN $n"
    fi
    echo "fd_dev_name=$backing,fd_dev_size=$(stat -c %s "$scenario_dir/disk.$n")" > "$device/control"
    echo "SN$scenario_index-$n" > "$device/wwn/vpd_unit_serial"
    echo 1 > "$device/enable"
    [[ " ${lio_4kn:-} " != *" $n "* ]] || echo 4096 > "$device/attrib/block_size"
    [ -z "${lio_thin:-}" ] || echo 1 > "$device/attrib/emulate_tpu"
    for group in $(seq "$groups"); do
      mkdir -p "$iqn/tpgt_$group/lun/lun_$n"
      ln -s "$device" "$iqn/tpgt_$group/lun/lun_$n/disk$n"
    done
  done
  for n in $(seq "$2"); do
    group=1; [ "$1" = one ] || group=$n
    # The kernel opens the listening socket in the network namespace of whoever makes this folder.
    target_ns mkdir "$iqn/tpgt_$group/np/$(portal "$n"):3260" || fail "LIO refuses portal $n"
  done
  for group in $(seq "$groups"); do echo 1 > "$iqn/tpgt_$group/enable"; done
  echo "$iqn" > "$scenario_dir/lio"
}

# From now on LIO wants CHAP, proves that it knows a secret itself, and insists on digests.
lio_secure() { # USERNAME PASSWORD USERNAME_IN PASSWORD_IN
  local group
  for group in "$(cat "$scenario_dir/lio")"/tpgt_*; do
    echo 1 > "$group/attrib/authentication"
    # LIO takes the line's end for a part of the value.
    printf %s "$1" > "$group/auth/userid"; printf %s "$2" > "$group/auth/password"
    printf %s "$3" > "$group/auth/userid_mutual"; printf %s "$4" > "$group/auth/password_mutual"
    echo CRC32C > "$group/param/HeaderDigest"; echo CRC32C > "$group/param/DataDigest"
  done
}

lio_lun() { echo "$(cat "$scenario_dir/lio")/tpgt_$1/lun/lun_1"; } # GROUP
# Behind a portal group's LUN 1 there is another disk now; nobody may be connected to it.
lio_swap_lun() { # GROUP FROM TO
  rm "$(lio_lun "$1")/disk$2" && ln -s "/run/configfs/target/core/fileio_$scenario_index/disk$3" "$(lio_lun "$1")/disk$3" ||
    fail "LIO refuses to swap LUN 1 of group $1"
  note "LUN 1 of group $1 is disk $3 now"
}

# ALUA of LUN 1: each of two portal groups' ports belongs to a controller, of which the first is active/optimized.
alua_optimized=0 alua_non_optimized=1 alua_standby=2
alua_controller() { echo "/run/configfs/target/core/fileio_$scenario_index/disk1/alua/controller$1"; } # N
alua_join() { echo "controller$1" > "$(lio_lun "$1")/alua_tg_pt_gp" || fail "LIO refuses controller $1"; } # N
alua_start() {
  local n
  for n in 1 2; do
    mkdir "$(alua_controller $n)" && echo $((10 + n)) > "$(alua_controller $n)/tg_pt_gp_id" &&
      echo 3 > "$(alua_controller $n)/alua_access_type" || fail "LIO refuses controller $n"   # implicit and explicit
    alua_join $n
  done
  alua_become 2 $alua_non_optimized
}
alua_become() { # N STATE
  echo "$2" > "$(alua_controller "$1")/alua_access_state" || fail "LIO refuses state $2 of controller $1"
  note "controller $1 is in state $2 now"
}
alua_is() { [ "$(cat "$(alua_controller "$1")/alua_access_state")" = "$2" ]; } # N STATE

lio_stop() {
  local iqn group device
  iqn=$(cat "$scenario_dir/lio")
  for group in "$iqn"/tpgt_*; do
    echo 0 > "$group/enable"
    rmdir "$group"/np/*
    rm -f "$group"/lun/lun_*/disk*
    rmdir "$group"/lun/lun_*; rmdir "$group"
  done
  rmdir "$iqn"
  for device in /run/configfs/target/core/fileio_"$scenario_index"/disk*; do
    for group in "$device"/alua/controller*; do [ ! -d "$group" ] || rmdir "$group"; done
    rmdir "$device"
  done
  rmdir "/run/configfs/target/core/fileio_$scenario_index"
}

# Cuts a portal's link. `reset`: connections are reset, new ones refused, as when the target's
# process or its host is gone. `drop`: packets vanish both ways, as when a switch dies.
cut_portal() { # N reset|drop
  local in out='drop'
  case $2 in
    reset) in='tcp flags & rst == 0 reject with tcp reset' out='tcp flags & rst == 0 drop' ;;
    drop) in=drop ;;
    *) fail "unknown way to cut a portal: $2" ;;
  esac
  target_ns nft -f - <<END || fail "nft refuses to cut portal $1"
table inet cut$1 {
  chain in { type filter hook input priority 0; iifname "p$1" $in; }
  chain out { type filter hook output priority 0; oifname "p$1" $out; }
}
END
  # The rules alone would reset a connection only at its next packet.
  [ "$2" != reset ] || target_ns ss -K state established src "$(portal "$1")" > /dev/null
  note "portal $1 cut ($2)"
}
restore_portal() { target_ns nft delete table inet "cut$1" && note "portal $1 restored"; } # N

# What is sent to a portal comes late by so many seconds, in silence until then; what comes from it is not delayed.
# On time again: what is on its way already keeps its delay.
delay_portal() { # N SECONDS
  modprobe sch_netem
  tc qdisc replace dev "v$scenario_index.$1" root netem delay "$2s" limit 100000 || fail "tc refuses to delay portal $1"
  note "portal $1 hears all $2 s late"
}
packets_on_the_way() { tc -s qdisc show dev "v$scenario_index.$1" | sed -n 's/.*backlog [^ ]* \([0-9]*\)p.*/\1/p'; } # N

# The cable is pulled at the initiator's end: its host knows at once.
link_down() { ip link set "v$scenario_index.$1" down && note "link $1 down"; } # N
link_up() { ip link set "v$scenario_index.$1" up && note "link $1 up"; } # N
# Bytes that went to a portal so far.
sent_to_portal() { cat "/sys/class/net/v$scenario_index.$1/statistics/tx_bytes"; } # N
# Whether nearly all that goes to two portals, and it is not nothing, goes to the first: I/O, not NOPs.
carries_all() { # N OTHER
  local here there
  here=$(sent_to_portal "$1") there=$(sent_to_portal "$2")
  nap 1
  here=$(($(sent_to_portal "$1") - here)) there=$(($(sent_to_portal "$2") - there))
  [ $here -gt 20000 ] && [ $((there * 4)) -lt $here ]
}

connections() { target_ns ss -Htn state established sport = :3260; }
has_connections() { [ "$(connections | wc -l)" -ge "${1:-1}" ]; } # [COUNT]
# Sessions as the target itself counts them: a half-open one shows here and not in `connections`.
target_sessions() {
  if [ -f "$scenario_dir/lio" ]; then
    cat "$(cat "$scenario_dir/lio")"/tpgt_*/dynamic_sessions | tr -d '\0' | grep . || true
  else
    tgt --mode conn --op show --tid 1 2> /dev/null | grep -i session || true
  fi
}
has_no_sessions() { [ -z "$(connections)" ] && [ -z "$(target_sessions)" ]; }

portal_in_use() { $stock || target_ns ss -Htn state established src "$(portal "$1")" sport = :3260 | grep -q .; } # N

### Disks ########################################################################################

# An xl disk line for a LUN of the scenario's target through all its portals.
disk() { # qdisk|vbd3 VDEV LUN [PORTALS] [ACCESS]
  local portals='' n
  if $stock; then stock_disk "$1" "$2" "$3" "${5:-rw}"; return; fi
  for n in $(seq "${4:-2}"); do portals+=,$(portal "$n"); done
  disk_of "$1" "$2" "iscsi://${portals#,}/$(target_iqn)/$3" "${5:-rw}"
}
disk_of() { # qdisk|vbd3 VDEV TARGET [ACCESS]
  case $1 in
    qdisk) echo "backendtype=qdisk,vdev=$2,access=${4:-rw},target=$3" ;;
    vbd3) echo "backendtype=tap,script=block-iscsi-blkback,vdev=$2,access=${4:-rw},target=$3" ;;
  esac
}
# Only to try the harness: a file through QEMU, a loop device through the kernel.
stock_disk() { # qdisk|vbd3 VDEV LUN ACCESS
  local file=$scenario_dir/stock.$3
  [ -f "$file" ] || truncate -s 64M "$file"
  case $1 in
    qdisk) echo "backendtype=qdisk,vdev=$2,access=$4,target=$file" ;;
    vbd3) modprobe -a xen_blkback loop; echo "backendtype=phy,vdev=$2,access=$4,target=$(losetup -f --show "$file")" ;;
  esac
}
# The disks that most scenarios give their guest: one of each kind that this Xen knows.
all_disks() { disk qdisk xvda 1; [ "$suite" = bookworm ] || disk vbd3 xvdb 2; }
all_vdevs() { echo xvda; [ "$suite" = bookworm ] || echo xvdb; }

### Guests #######################################################################################
# A guest is known by a short name, its domain is called sINDEX-NAME.

domain() { echo "s$scenario_index-$1"; } # GUEST
console_of() { echo "/var/log/xen/console/guest-$(domain "$1").log"; } # GUEST
domid() { xl domid "$(domain "$1")" 2> /dev/null; } # GUEST
# Counts the lines of a guest's console that match a shell pattern; no processes, it is polled.
console_count() { # GUEST PATTERN
  local line file=/var/log/xen/console/guest-s$scenario_index-$1.log
  count=0
  [ -f "$file" ] || return 0
  # shellcheck disable=SC2053
  while IFS= read -r line; do [[ ${line%$'\r'} != $2 ]] || count=$((count + 1)); done < "$file"
}
console_has() { local count; console_count "$1" "$2"; [ "$count" -gt 0 ]; } # GUEST PATTERN

# Copies kernel modules of dom0's, with what they depend on and unpacked, and lists them in loading order.
stage_modules() { # DIRECTORY LIST MODULE...
  local directory=$1 list=$2 file module; shift 2
  for module; do
    for file in $(modprobe --show-depends "$module" | awk '/^insmod/ { print $2 }'); do
      module=$(basename "${file%.xz}")
      ! grep -qsx "$module" "$directory/$list" || continue
      case $file in
        *.xz) busybox xz -dc "$file" > "$directory/$module" ;;
        *) cp "$file" "$directory/$module" ;;
      esac
      echo "$module" >> "$directory/$list"
    done
  done
}
# Makes a ramdisk for guests with more in it, and prints its path: programs of dom0's with the libraries that they need, and
# kernel modules, which load_modules loads in the guest.
guest_ramdisk_with() { # "PROGRAM..." MODULE...
  local root=$scenario_dir/ramdisk file programs=$1; shift
  mkdir -p "$root/modules"
  # shellcheck disable=SC2086
  for file in $programs $(ldd $programs | grep -o '/[^ ]*\.so[^ ]*' | sort -u); do install -D "$file" "$root$file"; done
  stage_modules "$root/modules" more "$@"
  # Before the other: the kernel finds nothing behind what lz4 has packed.
  { (cd "$root" && find . | busybox cpio -o -H newc 2> /dev/null); cat /tmp/guest.cpio; } > "$root.cpio"
  rm -rf "$root"
  echo "$root.cpio"
}

# Writes the configuration of a guest with these disk lines and prints its path. guest_vcpus (1), guest_memory (320),
# guest_kernel, guest_ramdisk (none with a kernel of its own), guest_on_crash (destroy) and guest_settings (lines) say more of it.
guest_config() { # GUEST pv|pvh DISK_LINE...
  local guest=$1 type=$2 file line; shift 2
  file=$scenario_dir/$guest.cfg
  {
    echo "name = '$(domain "$guest")'"
    echo "type = '$type'"
    echo "kernel = '${guest_kernel:-/lab/vmlinux}'"
    if [ -z "${guest_kernel:-}" ]; then
      echo "ramdisk = '${guest_ramdisk:-/tmp/guest.cpio}'"
      echo "extra = 'console=hvc0 quiet mitigations=off'"
    fi
    echo "memory = ${guest_memory:-320}"
    echo "vcpus = ${guest_vcpus:-1}"
    echo "tsc_mode = 'native'"     # emulated time stamps break a PVH guest under emulation
    # On the first emulated processor, which takes the machine's interrupts, QEMU ends one PVH guest in
    # three with a triple fault; on another one none of many.
    [ "$type" = pv ] || echo "cpus = '$(($(nproc) - 1))'"
    echo "on_reboot = 'restart'"
    echo "on_crash = '${guest_on_crash:-destroy}'"
    [ -z "${guest_settings:-}" ] || echo "$guest_settings"
    echo "disk = ["
    for line; do echo "  '$line',"; done
    echo "]"
  } > "$file"
  echo "$file"
}
guest_create() { # GUEST pv|pvh DISK_LINE...
  local file try
  file=$(guest_config "$@")
  note "xl create $(domain "$1") ($2)"; printf '  %s\n' "${@:3}"
  # libxl gives QEMU 10 s, whatever the machine; an emulator on a busy one may need a second try.
  for try in $(seq "$patience"); do
    xl create "$file" > "$scenario_dir/$1.xl.log" 2>&1 && break
    cat "$scenario_dir/$1.xl.log"
    [ "$try" -lt "$patience" ] && grep -q 'rc=-9' "$scenario_dir/$1.xl.log" || fail "xl create of $1 failed"
  done
  domid "$1" >> "$scenario_dir/domids"
  guest_up "$1" 1
}
has_booted() { local count; console_count "$1" '\[guest\] up *'; [ "$count" -ge "$2" ]; } # GUEST COUNT
# Waits until the guest has come up for the COUNTth time (guest_boot_s, 60) and remembers its (new) domain number.
guest_up() { # GUEST COUNT
  wait_until "${guest_boot_s:-60}" "guest $1 is up" has_booted "$1" "$2"
  note "guest $1 is up, domain $(domid "$1")"
  domid "$1" >> "$scenario_dir/domids"
}

# Starts a script in a guest and goes on. JOB names it; its lines are "[JOB] ..." on the console.
guest_start() { # GUEST JOB SCRIPT
  local tty
  tty=$(xenstore-read "/local/domain/$(domid "$1")/console/tty") || fail "guest $1 has no console"
  note "guest $1 starts $2: $3"
  printf '%s %s\n' "$2" "$(echo "$3" | base64 -w 0)" > "$tty"
}
job_ended() { console_has "$1" "\[$2\] exit *"; } # GUEST JOB
job_goes_on() { ! job_ended "$1" "$2" || { guest_finish "$1" "$2" 1; fail "job $2 in guest $1 ended early"; }; } # GUEST JOB
# Waits for a job, shows what it printed, and fails unless it ended with status 0.
guest_finish() { # GUEST JOB SECONDS
  wait_until "$3" "job $2 in guest $1 ends" job_ended "$1" "$2"
  job_output "$1" "$2" | sed 's/^/  /'
  [ "$(job_output "$1" "$2" | tail -1)" = 'exit 0' ] || fail "job $2 in guest $1: $(job_output "$1" "$2" | tail -2 | head -1)"
}
job_output() { tr -d '\r' < "$(console_of "$1")" | sed -n "s/^\[$2\] //p"; } # GUEST JOB
guest_run() { guest_start "$1" "$2" "$4"; guest_finish "$1" "$2" "$3"; } # GUEST JOB SECONDS SCRIPT
# Waits until a running job has printed a line that matches.
guest_says() { # GUEST JOB SECONDS PATTERN
  wait_until "$3" "job $2 in guest $1 says $4" console_has "$1" "\[$2\] *$4*"
}

# The I/O of a guest's job, the only one of the scenario's target: it flows, and the job has not ended early.
sent_to_portals() { cat "/sys/class/net/v$scenario_index".*/statistics/tx_bytes | awk '{ n += $1 } END { print n }'; }
io_flows() { local before; before=$(sent_to_portals); nap 2; [ $(($(sent_to_portals) - before)) -gt 40000 ]; }
io_stands() { local before; before=$(sent_to_portals); nap 2; [ $(($(sent_to_portals) - before)) -lt 4000 ]; }
goes_on() { # GUEST JOB
  wait_until 60 "the I/O of guest $1 goes on" io_flows
  nap 3
  job_goes_on "$1" "$2"
}
begin_fio() { # GUEST JOB [FIO_IOPS]
  guest_start "$1" "$2" "fio_iops=${3:-100} fio_verify xvda 3000"
  guest_says "$1" "$2" 60 running
  nap 3
}
end_fio() { # GUEST JOB
  guest_start "$1" "stop-$2" stop_fio
  guest_finish "$1" "$2" 90
}

# Attaches and detaches; what xl said is in attach.log and detach.log.
attach() { xl block-attach "$(domain "$1")" "$2" > "$scenario_dir/attach.log" 2>&1; } # GUEST DISK_LINE
detach() { timeout $((60 * patience)) xl block-detach "$(domain "$1")" "${@:2}" > "$scenario_dir/detach.log" 2>&1; } # GUEST VDEV [--force]
# The backend node of a guest's disk, empty when there is none.
backend_node() { # GUEST VDEV
  local id; id=$(domid "$1")
  xenstore-ls -f /local/domain/0/backend 2> /dev/null |
    sed -n "s,^\(/local/domain/0/backend/[a-z0-9]*/$id/[0-9]*\)/dev = \"$2\"\$,\1,p"
}
node_is_set() { [ -n "$(xenstore-read "$1" 2> /dev/null)" ]; } # NODE

is_gone() { ! xl list "$1" > /dev/null 2>&1; } # NAME_OR_NUMBER
guest_destroy() { note "xl destroy $1"; timeout $((60 * patience)) xl destroy "$(domain "$1")" || fail "xl destroy of $1 failed"; } # GUEST
guest_shutdown() { # GUEST
  guest_start "$1" poweroff 'poweroff -f'
  wait_until 60 "guest $1 powers off" is_gone "$(domain "$1")"
}

### What must hold afterwards ####################################################################

service_is_up() { $stock || kill -0 "$(cat /run/lab-service.pid)" 2> /dev/null; }
guest_processes() { pgrep -f "iscsi-blkback --guest $1( |\$)"; } # DOMID
# The one of these that is not the helper.
process_of() { pgrep -x -f "iscsi-blkback --guest $1 .*" | while read -r pid; do [ "$(cat "/proc/$pid/comm")" = blkback-helper ] || echo "$pid"; done; } # DOMID
# Processor time used so far, in ticks of 10 ms: by the processes of a guest, or by the service and all of them.
service_cpu_ticks() { # [DOMID]
  local pid
  for pid in $(if [ -n "${1:-}" ]; then guest_processes "$1"; else pgrep -x 'iscsi-blkback|blkback-helper'; fi); do
    cut -d' ' -f14,15 "/proc/$pid/stat" 2> /dev/null
  done | awk '{ n += $1 + $2 } END { print n + 0 }'
}
# What the product says about its disks and paths, for the log.
show_paths() { $stock || timeout $((10 * patience)) iscsi-blkctl ll; }
# Whether the path through a portal is shown with this word: ready, faulty, ghost, quarantined.
path_is() { show_paths 2> /dev/null | grep -F " $(portal "$1"):3260 " | grep -qE "lun [0-9]+ +[a-z]+ +$2( |\$)"; } # N WORD
has_no_child() { ! guest_processes "$1" > /dev/null; } # DOMID
has_no_nodes() { # DOMID
  ! xenstore-ls -f 2> /dev/null | cut -d' ' -f1 | grep -qE "^/local/domain/$1(/|$)|^/local/domain/0/(.*/)?(qdisk|vbd3|vbd)/$1(/|$)"
}
# Grants of a domain that somebody still uses (pinned), by Xen's own tables: a line for each.
grants_in_use() { # DOMID
  (
    flock 9   # the hypervisor's log is one for all scenarios
    xl dmesg -c >> "$xen_log"
    xl debug-keys g
    for _ in $(seq 100); do   # it prints at the speed of the serial line
      xl dmesg > "$scenario_dir/xen-tables"
      ! grep -q 'gnttab_usage_print_all *\] done' "$scenario_dir/xen-tables" || break
      sleep 0.1
    done
    awk -v domain="d$1" '
      /grant-table for remote/ { mine = 0; for (i = 1; i <= NF; i++) if ($i == domain) mine = 1 }
      mine && /^\(XEN\) *\[0x/ { print }' "$scenario_dir/xen-tables"
  ) 9> /run/lab-xl-dmesg.lock
}

# A stopped guest leaves nothing: no domain (Xen keeps a dead domain as long as anybody maps one of
# its pages: a domain that is gone from the list proves that no grant is left), no process of ours,
# no session at the target, no node in xenstore; and the service is alive.
assert_nothing_left() {
  local id
  for id in $(sort -un "$scenario_dir/domids"); do
    wait_until 30 "domain $id is gone from Xen, so no grant of it is mapped" is_gone "$id"
    wait_until 20 "no process serves domain $id" has_no_child "$id"
    wait_until 20 "xenstore has no node of domain $id" has_no_nodes "$id"
  done
  wait_until 20 "no session is left at the target: $(target_sessions; connections)" has_no_sessions
  assert_service_healthy
  note "nothing left behind"
}
assert_service_healthy() { service_is_up || fail "the service iscsi-blkback is not running any more"; }
# Our disks need none of the kernel's iSCSI, multipath or block backend. The last of these may be loaded:
# udev does that for a disk of another scenario that xl refuses only when its node is there.
assert_no_kernel_path() {
  local module id
  $stock && return
  for module in iscsi_tcp libiscsi scsi_transport_iscsi dm_multipath; do
    ! grep -q "^$module " /proc/modules || fail "the kernel module $module is loaded"
  done
  for id in $(sort -un "$scenario_dir/domids"); do
    ! compgen -G "/sys/bus/xen-backend/devices/vbd-$id-*" > /dev/null || fail "the kernel serves a disk of domain $id"
  done
}

### Clean-up after a scenario ####################################################################

scenario_cleanup() {
  local name pid device
  for name in $(xl list 2> /dev/null | awk -v prefix="s$scenario_index-" 'index($1, prefix) == 1 { print $1 }'); do
    timeout 60 xl destroy "$name"
  done
  if [ -f "$scenario_dir/kernel-stack" ]; then (. "$harness_dir/measuring.sh"; kernel_stack_stop); fi
  for pid in "$scenario_dir"/{tgtd,other,null_target}.pid; do [ ! -f "$pid" ] || kill -KILL "$(cat "$pid")" 2> /dev/null; done
  [ ! -f "$scenario_dir/lio" ] || lio_stop
  for device in $(losetup -nO NAME,BACK-FILE | awk -v dir="$scenario_dir/" 'index($2, dir) == 1 { print $1 }'); do losetup -d "$device"; done
  umount "$scenario_dir/small" "$scenario_dir/mnt" 2> /dev/null
  for device in $(ip -o link show | sed -n "s/^[0-9]*: \(v$scenario_index\.[0-9]*\)@.*/\1/p"); do ip link del "$device"; done
  ip netns del "t$scenario_index" 2> /dev/null
  rm -f "$scenario_dir"/disk.* "$scenario_dir"/stock.* "$scenario_dir"/*.socket* "$scenario_dir"/ramdisk.cpio
}
