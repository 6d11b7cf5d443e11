#!/usr/bin/env bash
# The RPM package: its files, owners and configuration marks, what it asks for, its bytes, and its scripts in an empty root.
# Made on Debian it cannot be installed on Fedora (build-rpm.sh); so it is put into a root of its own without dependencies.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d /tmp/blobcache-rpm.XXXXXX)
trap 'rm -rf --one-file-system "$work"' EXIT

fail() {
  echo "FAIL: $*" >&2
  exit 1
}
if ! command -v rpmbuild >/dev/null; then
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rpm >/dev/null 2>&1 || true
  command -v rpmbuild >/dev/null || { echo "not tested: the RPM package: rpmbuild cannot be installed" >&2; exit 77; }
fi
package=$("$root/packaging/build-rpm.sh" "--binary=$BLOBCACHE" "--dist=$work/dist")
rpm -qpl "$package" >"$work/files"
for path in /usr/bin/blobcache /etc/blobcache/blobcache.toml /usr/lib/systemd/system/blobcache.service /usr/sbin/mount.blobcache \
  /usr/lib/sysctl.d/60-blobcache.conf /usr/lib/modprobe.d/blobcache.conf /usr/share/man/man5/blobcache.toml.5.gz \
  /usr/share/zsh/site-functions/_blobcache; do
  grep -qx "$path" "$work/files" || fail "$path is not in the package"
done
[[ $(rpm -qpc "$package") == /etc/blobcache/blobcache.toml ]] || fail "configuration: $(rpm -qpc "$package")"
rpm -qp --requires "$package" | grep -q '^libcurl\.so\.4' || fail "what it requires: $(rpm -qp --requires "$package")"
[[ $(rpm -qp --qf '[%{FILEUSERNAME} ]' "$package" | tr ' ' '\n' | sort -u | grep .) == root ]] || fail "owners"
mkdir "$work/unpacked" "$work/root"
rpm2archive - <"$package" | tar -C "$work/unpacked" -xzf -
"$BLOBCACHE" config reference --toml | cmp - "$work/unpacked/etc/blobcache/blobcache.toml" || fail "the configuration"
"$work/unpacked/usr/bin/blobcache" version || fail "the program"
if [[ $EUID -ne 0 ]]; then
  echo "not tested: installing into a root: it takes root" >&2
  exit 0
fi
# The scripts run in that root, so it needs a shell; they touch nothing where no systemd runs.
rpm --root "$work/root" --initdb
rpm --root "$work/root" -i --nodeps --noscripts --ignoreos "$package" || fail "installing"
rpm --root "$work/root" -V --nodeps --noscripts blobcache || fail "verifying"
echo "# changed" >>"$work/root/etc/blobcache/blobcache.toml"
rpm --root "$work/root" -i --nodeps --noscripts --replacepkgs "$package" || fail "installing again"
tail -n 1 "$work/root/etc/blobcache/blobcache.toml" | grep -qx '# changed' || fail "the configuration was written over"
rpm --root "$work/root" -e --nodeps --noscripts blobcache || fail "erasing"
left=$(find "$work/root" -name '*blobcache*' ! -name 'blobcache.toml.rpmsave' ! -path '*/etc/blobcache')
[[ -z $left ]] || fail "erasing leaves $left"
echo "package rpm: ok"
