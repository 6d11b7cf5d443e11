#!/usr/bin/env bash
# What is installed beside the program: every option that a command's --help names stands in its manual page and in the
# completions of each shell, manual pages have no errors, the unit is as systemd wants it and gives the service no mount
# namespace, mount.blobcache calls `blobcache mount` as fstab means it.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
skipped=0

fail() {
  echo "FAIL: $*" >&2
  exit 1
}
not_tested() {
  echo "not tested: $1: $2" >&2
  skipped=$((skipped + 1))
}

"$BLOBCACHE" generate "$work/texts"

check_command() { # COMMAND [SUBCOMMAND]
  local page=$work/texts/blobcache-${*// /-} words word last=${*: -1}
  page=$work/texts/blobcache-$(tr ' ' - <<<"$*").1
  [[ -s $page ]] || fail "no manual page of $*"
  words=$("$BLOBCACHE" "$@" --help | grep -oE '^ +(-[a-z],)?--?[a-z][a-z-]*' | grep -oE -- '--?[a-z][a-z-]*')
  grep -q -- --help <<<"$words" || fail "--help of $* lists no option"
  for word in $words; do
    grep -qF -- "\\fB${word//-/\\-}\\fR" "$page" || fail "$word of $* is not in its manual page"
    # As bash would be asked.
    (
      # shellcheck disable=SC1091
      source "$work/texts/blobcache.bash"
      COMP_WORDS=(blobcache "$@" "$word") COMP_CWORD=$(($# + 1)) COMPREPLY=()
      _blobcache
      [[ " ${COMPREPLY[*]} " == *" $word"[\ =]* ]]
    ) || fail "$word of $* is not completed by bash"
    grep -E "^    (${1})\)|^    $1 $last\)" "$work/texts/blobcache.zsh" | grep -qF -- "'*$word" || fail "$word of $*: zsh"
    case $word in
      --*) grep -qE "from $last'.* -l ${word#--} " "$work/texts/blobcache.fish" || fail "$word of $*: fish" ;;
      *) grep -qE "from $last'.* -s ${word#-} " "$work/texts/blobcache.fish" || fail "$word of $*: fish" ;;
    esac
  done
}

mapfile -t commands < <("$BLOBCACHE" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z][a-z]*\) .*/\1/p')
((${#commands[@]} >= 8)) || fail "commands: ${commands[*]}"
for command in "${commands[@]}"; do
  check_command "$command"
  grep -qx ".B $command" "$work/texts/blobcache.1" || fail "$command is not in blobcache.1"
  grep -q "'$command:" "$work/texts/blobcache.zsh" || fail "$command is not completed by zsh"
done
for command in check show reference; do check_command config "$command"; done
[[ " ${commands[*]} " != *" generate "* ]] || fail "generate is listed"
keys=$("$BLOBCACHE" config reference | grep -cE '^[a-z0-9_.]+$')
[[ $(grep -cE '^\.B [a-z0-9_]+\.[a-z0-9_.]+$' "$work/texts/blobcache.toml.5") == "$keys" ]] || fail "keys of blobcache.toml(5)"
# shellcheck disable=SC1091
(
  source "$work/texts/blobcache.bash"
  COMP_WORDS=(blobcache mount -o log.l) COMP_CWORD=3
  _blobcache 2>/dev/null
  [[ ${COMPREPLY[*]} == log.level= ]]
) || fail "keys are not completed"
for shell in bash zsh fish; do
  if command -v $shell >/dev/null; then
    $shell -n "$work/texts/blobcache.$shell" || fail "the completion of $shell"
    [[ $shell == bash ]] || python3 "$root/tests/package/completions.py" $shell "$work/texts/blobcache.$shell" || fail "$shell completes nothing"
  else
    not_tested "the completion of $shell in $shell" "it is not installed"
  fi
done
if command -v groff >/dev/null; then
  for page in "$work"/texts/*.[1-9]; do
    groff -man -ww -z -Tutf8 "$page" >"$work/groff" 2>&1
    [[ ! -s $work/groff ]] || fail "${page##*/}: $(head -n 3 "$work/groff")"
  done
else
  not_tested "the manual pages in groff" "it is not installed"
fi

unit=$root/packaging/systemd/blobcache.service
for line in Type=notify FileDescriptorStoreMax=64 LimitMEMLOCK=infinity 'ExecReload=/bin/kill -HUP $MAINPID'; do
  grep -qxF -- "$line" "$unit" || fail "the unit has no $line"
done
# systemd.exec(5): each of these gives the service a mount namespace.
! grep -E '^(Protect(System|Home|KernelTunables|KernelModules|KernelLogs|ControlGroups|Proc|Hostname)|Private[A-Za-z]+|(ReadWrite|ReadOnly|Inaccessible|Exec|NoExec)Paths|Bind(ReadOnly)?Paths|TemporaryFileSystem|Mount[A-Za-z]+|RootDirectory|RootImage[A-Za-z]*|ExtensionImages|DynamicUser|ProcSubset|(Runtime|State|Cache|Logs|Configuration)Directory)=' \
  "$unit" || fail "the unit would give the service a mount namespace, or a folder that ends with it"
if command -v systemd-analyze >/dev/null; then
  sed "s|/usr/bin/blobcache|$BLOBCACHE|" "$unit" >"$work/blobcache.service"
  systemd-analyze verify --man=no "$work/blobcache.service" >"$work/verify" 2>&1 || fail "systemd: $(<"$work/verify")"
  ! grep -F blobcache.service "$work/verify" || fail "systemd-analyze warns"
else
  not_tested "the unit" "systemd-analyze is not installed"
fi

# mount.blobcache, with a program in the place of blobcache that says how it is called.
cat >"$work/told" <<'SH'
#!/bin/sh
for word in "$@"; do printf '[%s]' "$word"; done
SH
chmod 755 "$work/told"
expect_call() { # WANTED ARGUMENT...
  local wanted=$1 got
  shift
  got=$(BLOBCACHE=$work/told "$root/packaging/mount.blobcache" "$@") || fail "mount.blobcache $* ended with $?"
  [[ $got == "$wanted" ]] || fail "mount.blobcache $*: $got, not $wanted"
}
expect_call '[mount][s3://b/p][/mnt/a b][--cache-dir=/nvme/x][--cache-size=5GB][-o][volume.s3.region=eu-1]' \
  s3://b/p '/mnt/a b' -o rw,_netdev,nofail,cache-dir=/nvme/x,x-systemd.automount,cache-size=5GB,volume.s3.region=eu-1,noatime
expect_call '[mount][/data][/mnt][-o][fuse.allow_other=on][--memory=1GiB]' /data /mnt -n -o allow_other -v -o memory=1GiB
expect_call '' /data /mnt -f -o ro
expect_call '[mount][/data][/mnt]' /data /mnt -sn -o defaults,whatever
for wrong in 'whatever' 'remount,ro'; do
  if BLOBCACHE=$work/told "$root/packaging/mount.blobcache" /data /mnt -o "$wrong" >"$work/out" 2>"$work/error"; then
    fail "mount.blobcache takes -o $wrong"
  fi
  [[ $(wc -l <"$work/error") == 1 ]] || fail "one sentence for -o $wrong: $(<"$work/error")"
done
printf '#!/bin/sh\nexit 3\n' >"$work/told"
status=0
BLOBCACHE=$work/told "$root/packaging/mount.blobcache" /data /mnt || status=$?
[[ $status == 32 ]] || fail "mount(8) is told $status of a failed mount"
echo "package files: ok, $skipped not tested"
