#!/usr/bin/env bash
# Puts everything that is installed under one folder, for both kinds of packages: stage.sh DIRECTORY [--binary=FILE]
# Without --binary the program is built as a release in build/release.
set -euo pipefail

cd "$(dirname "$0")/.."
directory=${1:?usage: stage.sh DIRECTORY [--binary=FILE]}
binary=''
case ${2:-} in --binary=?*) binary=${2#*=} ;; '') ;; *) echo "stage.sh: unknown argument $2" >&2; exit 2 ;; esac

if [[ -z $binary ]]; then
  packaging/install-deps.sh build
  [[ -e build/release/build.ninja ]] || meson setup build/release --buildtype=release -Dtests=false --prefix=/usr
  ninja -C build/release src/blobcache
  binary=build/release/src/blobcache
fi

put() { install -D -m "$1" "$2" "$directory/$3"; } # MODE FILE PATH
install -D -m 755 "$binary" "$directory/usr/bin/blobcache"
strip --strip-debug "$directory/usr/bin/blobcache" # the tracepoints stay
put 644 packaging/systemd/blobcache.service usr/lib/systemd/system/blobcache.service
put 644 packaging/sysctl.conf usr/lib/sysctl.d/60-blobcache.conf
put 644 packaging/modprobe.conf usr/lib/modprobe.d/blobcache.conf
put 644 packaging/tmpfiles.conf usr/lib/tmpfiles.d/blobcache.conf
put 755 packaging/mount.blobcache usr/sbin/mount.blobcache
put 644 LICENSE usr/share/doc/blobcache/copyright
for page in docs/*.md; do put 644 "$page" "usr/share/doc/blobcache/${page##*/}"; done
# Dashboards and alert rules, whatever there is.
if [[ -d packaging/monitoring ]]; then
  while IFS= read -r -d '' file; do
    put 644 "$file" "usr/share/blobcache/${file#packaging/monitoring/}"
  done < <(find packaging/monitoring -type f ! -name '*.py' -print0)
fi

# Made by the program from its own commands and keys, so that they cannot differ from them.
texts=$(mktemp -d)
trap 'rm -rf "$texts"' EXIT
"$binary" generate "$texts"
"$binary" config reference --toml >"$texts/blobcache.toml"
put 644 "$texts/blobcache.toml" etc/blobcache/blobcache.toml
for page in "$texts"/*.[1-9]; do
  gzip -9n "$page"
  put 644 "$page.gz" "usr/share/man/man${page##*.}/${page##*/}.gz"
done
put 644 "$texts/blobcache.bash" usr/share/bash-completion/completions/blobcache
put 644 "$texts/blobcache.zsh" usr/share/zsh/vendor-completions/_blobcache
put 644 "$texts/blobcache.fish" usr/share/fish/vendor_completions.d/blobcache.fish
