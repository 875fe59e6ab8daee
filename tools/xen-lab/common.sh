# Shared by the lab's host-side scripts (build, build-product, run): which suites exist, where
# things go, which Debian mirror to use, and the stamps that decide what is rebuilt.
# Sourced, not run.

lab_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source_dir=$(cd "$lab_dir/../.." && pwd)
lab_out=${XEN_LAB_DIR:-$source_dir/build/xen-lab}

declare -A xen_version=([trixie]=4.20 [bookworm]=4.17)
declare -A fmt_package=([trixie]=libfmt10 [bookworm]=libfmt9)

say() { echo "xen-lab: $*"; }
die() { echo "xen-lab: error: $*" >&2; exit 1; }

require_suite() {
  [ -n "${xen_version[${1:-none}]:-}" ] || die "unknown suite '${1:-}', choose one of: ${!xen_version[*]}"
}

require_tools() { # TOOL...
  local tool missing=()
  for tool; do command -v "$tool" > /dev/null || missing+=("$tool"); done
  [ ${#missing[@]} -eq 0 ] || die "these programs are missing: ${missing[*]}"
  [ "$(id -u)" = 0 ] || die "must run as root (it makes a root file system)"
}

# The machine's own Debian mirror, asked from apt itself, so that it does not matter in which file
# or format it stands, and so that repositories which are not Debian's are left out.
debian_mirror() { # SUITE
  local uri scratch
  scratch=$(mktemp -d)   # apt replaces the file that it downloads to: no place for /dev/null
  candidates() {
    apt-get indextargets --format '$(ORIGIN)|$(COMPONENT)|$(REPO_URI)' 'Identifier: Packages' |
      awk -F'|' '$1 == "Debian" && $2 == "main" && $3 !~ /security|backports/ && !seen[$3]++ { print $3 }'
  }
  [ -n "$(candidates)" ] || apt-get update > /dev/null   # apt knows an origin only from its lists
  for uri in $(candidates); do                           # e.g. a snapshot may not have every suite
    if /usr/lib/apt/apt-helper download-file "${uri%/}/dists/$1/InRelease" "$scratch/InRelease" > /dev/null 2>&1; then
      rm -rf "$scratch"
      echo "${uri%/}"; return
    fi
  done
  rm -rf "$scratch"
  die "no Debian mirror in apt's sources has the suite $1 (looked at: $(candidates | tr '\n' ' '))"
}

# The files with keys that this machine trusts Debian's mirrors with; a private one may have its own.
keyrings() {
  local keyring
  for keyring in /usr/share/keyrings/debian-archive-keyring.gpg \
      $(grep -rhoiE '(^signed-by: *|[[ ]signed-by=)/[^] ]+' /etc/apt/sources.list /etc/apt/sources.list.d 2> /dev/null |
        grep -o '/.*' | sort -u); do
    [ ! -r "$keyring" ] || echo "$keyring"
  done
}

# mmdebstrap with what all our trees have in common: the machine's mirror, keys and proxy; no
# documentation, no initramfs (the lab makes its own, which takes no time), no fsync per file.
make_tree() { # SUITE DIRECTORY PACKAGE...
  local suite=$1 directory=$2 mirror keyring option; shift 2
  local -a options=()
  mirror=$(debian_mirror "$suite") || return
  while read -r keyring; do options+=("--keyring=$keyring"); done < <(keyrings)
  while read -r option; do options+=("--aptopt=$option"); done < <(apt-config dump | grep -iE '^Acquire::https?::Proxy')
  mmdebstrap --quiet --mode=root --variant=minbase "${options[@]}" \
    --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/lib/modules/*/kernel/drivers/gpu/*' \
    --dpkgopt='path-exclude=/usr/lib/modules/*/kernel/drivers/gpu/*' \
    --essential-hook='chroot "$1" dpkg-divert --quiet --local --rename --add /usr/sbin/update-initramfs' \
    --essential-hook='ln -s /bin/true "$1/usr/sbin/update-initramfs"' \
    --include="$(IFS=,; echo "$*")" "$suite" "$directory" "deb $mirror $suite main"
}

stamp_of() { { printf '%s\n' "$@"; } | sha256sum | cut -d' ' -f1; }              # STRING...
hash_files() { (cd "$source_dir" && sha256sum "$@") | sha256sum | cut -d' ' -f1; } # FILE...
is_current() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }                         # STAMP_FILE VALUE

# One builder at a time per folder: tools/test may build two suites side by side.
lock() { # FILE
  mkdir -p "$(dirname "$1")"
  exec {lock_fd}> "$1"
  flock -n "$lock_fd" || { say "waiting for another build of the same folder"; flock "$lock_fd"; }
}
