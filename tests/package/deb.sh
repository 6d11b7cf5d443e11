#!/usr/bin/env bash
# The Debian package in a clean system: installed, run as the unit says, read through, mounted by fstab, installed once more
# over a changed configuration, and purged without a trace. Needs root, debootstrap and the distribution's mirror.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)

fail() {
  echo "FAIL: $*" >&2
  exit 1
}
nothing_tested() {
  echo "not tested: the Debian package: $1" >&2
  exit 77
}

if [[ ${1:-} != inside ]]; then
  [[ $EUID -eq 0 ]] || nothing_tested "a clean system is made by root"
  command -v apt-get >/dev/null || nothing_tested "this is no Debian"
  for tool in debootstrap dpkg-shlibdeps; do
    command -v $tool >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap dpkg-dev \
      >/dev/null 2>&1 || nothing_tested "debootstrap cannot be installed"
  done
  work=$(mktemp -d /tmp/blobcache-deb.XXXXXX)
  trap 'rm -rf --one-file-system "$work"' EXIT
  package=$("$root/packaging/build-deb.sh" "--binary=$BLOBCACHE" "--dist=$work")
  libraries=$(dpkg-deb --field "$package" Depends | tr ',' '\n' | sed 's/^ *//; s/[ (|].*//' | paste -sd,)
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 /debian/)
  suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
  debootstrap --variant=minbase --include="$libraries,fuse3" "$suite" "$work/system" "$mirror" >"$work/debootstrap.log" 2>&1 ||
    nothing_tested "debootstrap: $(tail -n 1 "$work/debootstrap.log")"
  cp "$package" "$work/system/package.deb"
  cp "$0" "$work/system/test.sh"
  # In namespaces of their own: whatever happens, the mounts and processes end with the test.
  exec_status=0
  unshare --mount --propagation private --pid --fork --kill-child bash -eu -c '
    mount --rbind /dev "$1/dev"
    mount -t proc proc "$1/proc"
    mount --rbind /sys "$1/sys"
    mount -t tmpfs tmpfs "$1/run"
    exec env -u TMPDIR chroot "$1" /bin/bash /test.sh inside' sh "$work/system" || exec_status=$?
  exit $exec_status
fi

# Inside the clean system.
unset BLOBCACHE # the one outside
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin
exec {never}<> <(:)
wait_for() { # SECONDS WHAT COMMAND...
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    ((SECONDS <= deadline)) || fail "waited in vain: $what"
    read -rt 0.02 -u "$never" || true
  done
}
is_mounted() { grep -qF -- " $1 " /proc/self/mountinfo; }
is_unmounted() { ! is_mounted "$1"; }
find_traces() { find / -xdev -iname '*blobcache*' ! -path '/proc/*' ! -path '/sys/*'; }

mapfile -t before < <(find_traces)
((${#before[@]} == 0)) || fail "the system is not clean: ${before[*]}"
dpkg -i /package.deb >/tmp/dpkg 2>&1 || fail "dpkg: $(cat /tmp/dpkg)"
[[ -z $(dpkg --verify blobcache) ]] || fail "dpkg --verify: $(dpkg --verify blobcache)"
for path in /usr/bin/blobcache /etc/blobcache/blobcache.toml /usr/lib/systemd/system/blobcache.service /usr/sbin/mount.blobcache \
  /usr/lib/sysctl.d/60-blobcache.conf /usr/lib/modprobe.d/blobcache.conf /usr/lib/tmpfiles.d/blobcache.conf \
  /usr/share/bash-completion/completions/blobcache /usr/share/man/man1/blobcache-mount.1.gz; do
  dpkg -L blobcache | grep -qx "$path" || fail "$path is not in the package"
done
dpkg-query -W -f='${Conffiles}' blobcache | grep -q /etc/blobcache/blobcache.toml || fail "the configuration is no conffile"
blobcache version
blobcache config check >/tmp/check || fail "the shipped configuration: $(cat /tmp/check)"
while read -r library; do [[ $library != *"not found"* ]] || fail "$library"; done < <(ldd /usr/bin/blobcache)

mkdir -p /srv/data/sub /mnt/data /mnt/fstab
head -c 20000000 /dev/urandom >/srv/data/sub/file
echo hello >/srv/data/small
cat >>/etc/blobcache/blobcache.toml <<'TOML'
[[cache.disk]]
size = "64MiB"
[[volume]]
name = "data"
source = "/srv/data"
mountpoint = "/mnt/data"
TOML
export BLOBCACHE_MEMORY_LIMIT=384MiB BLOBCACHE_NODE_CORES=1 BLOBCACHE_HTTP_LISTEN=''
command=$(sed -n 's/^ExecStart=//p' /usr/lib/systemd/system/blobcache.service)
$command >/tmp/run.log 2>&1 &
daemon=$!
wait_for 30 "the mount of the unit's command: $(tail -n 3 /tmp/run.log)" is_mounted /mnt/data
for _ in 1 2; do diff -r /srv/data /mnt/data || fail "the bytes of /mnt/data"; done
blobcache stat /mnt/data/sub/file
echo '/srv/data /mnt/fstab blobcache _netdev,nofail,memory=256MiB,node.cores=1,http.listen= 0 0' >>/etc/fstab
mount /mnt/fstab || fail "mount of fstab's line: $?"
is_mounted /mnt/fstab || fail "fstab's line is not mounted"
diff -r /srv/data /mnt/fstab || fail "the bytes of /mnt/fstab"
umount /mnt/fstab || fail "umount of fstab's line"
is_unmounted /mnt/fstab || fail "still mounted"
blobcache report --output=/tmp/report.tar.gz || fail "the report"
tar -tzf /tmp/report.tar.gz >/tmp/names
grep -q 'daemon-.*/status.json' /tmp/names || fail "no status in the report"
rm /tmp/report.tar.gz
kill "$daemon"
wait "$daemon" || fail "the daemon ended with $?: $(tail -n 5 /tmp/run.log)"
is_unmounted /mnt/data || fail "the volume is still mounted"
[[ -e /var/cache/blobcache/FORMAT ]] || fail "nothing was kept on disk"

dpkg -i /package.deb >/tmp/dpkg 2>&1 </dev/null || fail "the second installation: $(cat /tmp/dpkg)"
grep -q '^source = "/srv/data"' /etc/blobcache/blobcache.toml || fail "the configuration was written over"
dpkg --remove blobcache >/tmp/dpkg 2>&1 || fail "remove: $(cat /tmp/dpkg)"
[[ -e /etc/blobcache/blobcache.toml && -e /var/cache/blobcache/FORMAT ]] || fail "remove takes what only purge may take"
dpkg --purge blobcache >/tmp/dpkg 2>&1 || fail "purge: $(cat /tmp/dpkg)"
mapfile -t left < <(find_traces)
((${#left[@]} == 0)) || fail "purge leaves ${left[*]}"
echo "package deb: ok"
