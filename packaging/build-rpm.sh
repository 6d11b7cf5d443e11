#!/usr/bin/env bash
# Makes dist/blobcache-VERSION-1.ARCHITECTURE.rpm: build-rpm.sh [--binary=FILE] [--dist=DIRECTORY]
# It needs the libraries of the distribution that it is made on: make it on the one that it is for. (One made on Debian asks for
# Debian's symbol versions of libcurl and cannot be installed on Fedora.) Prints the path of the package.
set -euo pipefail

cd "$(dirname "$0")/.."
dist=dist
stage=()
for argument in "$@"; do
  case $argument in --dist=?*) dist=${argument#*=} ;; *) stage+=("$argument") ;; esac
done
command -v rpmbuild >/dev/null || { echo "build-rpm.sh: rpmbuild is missing: install rpm (Debian) or rpm-build" >&2; exit 3; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022
packaging/stage.sh "$work/root" "${stage[@]}" >&2
# Where these distributions look for completions of vendors.
mkdir -p "$work/root/usr/share/zsh/site-functions"
mv "$work/root/usr/share/zsh/vendor-completions/_blobcache" "$work/root/usr/share/zsh/site-functions/"
rmdir "$work/root/usr/share/zsh/vendor-completions"
version=$(sed -n "s/^ *version: '\(.*\)',$/\1/p" meson.build)
{
  (cd "$work/root" && find . -type f ! -path ./etc/blobcache/blobcache.toml) | sed 's/^\.//' | sort
  echo '%dir /etc/blobcache'
  echo '%dir /usr/share/doc/blobcache'
  if [[ -d $work/root/usr/share/blobcache ]]; then echo '%dir /usr/share/blobcache'; fi
} >"$work/files"
rpmbuild -bb --quiet --define "_topdir $work/rpm" --define "given_version $version" --define "staged $work/root" \
  --define "file_list $work/files" packaging/rpm/blobcache.spec >&2
mkdir -p "$dist"
package=$(find "$work/rpm/RPMS" -name '*.rpm')
mv "$package" "$dist/"
echo "$dist/${package##*/}"
