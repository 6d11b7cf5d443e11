#!/usr/bin/env bash
# Makes dist/blobcache_VERSION_ARCHITECTURE.deb: build-deb.sh [--binary=FILE] [--dist=DIRECTORY]
# It depends on the libraries of the distribution that it is made on. Prints the path of the package.
set -euo pipefail

cd "$(dirname "$0")/.."
dist=dist
stage=()
for argument in "$@"; do
  case $argument in --dist=?*) dist=${argument#*=} ;; *) stage+=("$argument") ;; esac
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
umask 022
root=$work/root
packaging/stage.sh "$root" "${stage[@]}" >&2

version=$(sed -n "s/^ *version: '\(.*\)',$/\1/p" meson.build)
architecture=$(dpkg --print-architecture)
# dpkg-shlibdeps wants to stand in a source package.
mkdir -p "$work/source/debian" "$root/DEBIAN"
printf 'Source: blobcache\n\nPackage: blobcache\nArchitecture: any\n' >"$work/source/debian/control"
libraries=$(cd "$work/source" && dpkg-shlibdeps -O "$root/usr/bin/blobcache" 2>/dev/null | sed -n 's/^shlibs:Depends=//p')
[[ -n $libraries ]] || { echo "build-deb.sh: dpkg-shlibdeps found no libraries" >&2; exit 1; }
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" -e "s/@LIBRARIES@/$libraries/" \
  -e "s/@SIZE@/$(du -k -s --exclude=DEBIAN "$root" | cut -f 1)/" packaging/deb/control.in >"$root/DEBIAN/control"
echo /etc/blobcache/blobcache.toml >"$root/DEBIAN/conffiles"
for script in postinst prerm postrm; do install -m 755 "packaging/deb/$script" "$root/DEBIAN/$script"; done
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
mkdir -p "$dist"
package=$dist/blobcache_${version}_$architecture.deb
dpkg-deb --root-owner-group --build "$root" "$package" >&2
echo "$package"
