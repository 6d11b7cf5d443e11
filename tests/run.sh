#!/usr/bin/env bash
# Installs what the tests need, builds, runs every test, says how it went. The last line is `N passed, N failed`, with
# `, N skipped` only where something was not tested; each such thing is named above it.
#
#   tests/run.sh [--compiler=gcc|clang] [--sanitize=address,undefined|thread] [--suite=NAME]... [--build-dir=DIR] [--long]
#
# Suites: lint, unit, threads (those of unit that have threads), ring_conformance, mount, sanitized (those of mount that
# go through most of the code); only what they need is built.
# --long also runs the long versions. Mounts happen below a folder of this run in /tmp; a mount or a process that a test
# leaves behind is removed and counted as a failure.
set -uo pipefail

cd "$(dirname "$0")/.." || exit 1
root=$PWD

usage() {
  sed -n '2,10p' "$root/tests/run.sh" | sed 's/^# \{0,1\}//'
  exit "$1"
}

compiler=gcc sanitize=none build_dir='' long=0
suites=()
for argument in "$@"; do
  case $argument in
    --compiler=gcc | --compiler=clang) compiler=${argument#*=} ;;
    --sanitize=address,undefined | --sanitize=thread) sanitize=${argument#*=} ;;
    --build-dir=?*) build_dir=${argument#*=} ;;
    --suite=?*) suites+=(--suite "${argument#*=}") ;;
    --long) long=1 ;;
    --help) usage 0 ;;
    *) echo "tests/run.sh: unknown argument $argument" >&2; usage 2 >&2 ;;
  esac
done

name=$compiler
case $sanitize in address,undefined) name+=-asan ;; thread) name+=-tsan ;; esac
build_dir=${build_dir:-build/$name}

run_dir=''
mark=''
child=0
uring_switch=/sys/module/fuse/parameters/enable_uring
uring_before=''

# Ends what this run started and removes its folder; prints what a test had left. Returns 1 when there was something.
clean_up() {
  [[ -z $uring_before ]] || echo "$uring_before" >"$uring_switch"
  uring_before=''
  [[ -n $run_dir ]] || return 0
  python3 "$root/tests/harness/leftovers.py" "$run_dir" "$mark"
  local status=$?
  # Never below something that is still mounted: it may be somebody's files.
  if [[ $status -le 1 ]]; then rm -rf --one-file-system -- "$run_dir"; fi
  run_dir=''
  return $status
}

interrupted() {
  trap '' INT TERM HUP
  if [[ $child -ne 0 ]]; then kill -TERM -- "-$child" 2>/dev/null; fi
  clean_up
  echo "interrupted: the tests did not finish"
  echo "0 passed, 1 failed"
  exit 130
}
trap interrupted INT TERM HUP
trap clean_up EXIT

# The command runs in a process group of its own and this shell waits, so that a signal is acted on at once and a test
# does not inherit ignored signals.
run_child() {
  set -m
  "$@" </dev/null &
  child=$!
  set +m
  wait "$child"
  local status=$?
  child=0
  return $status
}

give_up() { # REASON: a step before the tests failed
  echo "FAILED: $1"
  echo "0 passed, 1 failed"
  exit 1
}

profile='test'
if [[ $compiler == clang ]]; then profile='ci'; fi
run_child packaging/install-deps.sh $profile || give_up "what the tests need could not be installed"

# A build folder made with other settings is made again; ninja sees every other change by itself.
settings="$compiler $sanitize 1"
if [[ ! -e $build_dir/build.ninja || $(cat "$build_dir/run.settings" 2>/dev/null) != "$settings" ]]; then
  case $compiler in
    gcc) cc=gcc cxx=g++ ;;
    clang) cc=$(command -v clang-19 || command -v clang) cxx=$(command -v clang++-19 || command -v clang++) ;;
  esac
  if command -v ccache >/dev/null; then cc="ccache $cc" cxx="ccache $cxx"; fi
  wipe=()
  if [[ -e $build_dir/meson-private/coredata.dat ]]; then wipe=(--wipe); fi
  CC=$cc CXX=$cxx run_child meson setup "${wipe[@]}" "$build_dir" --buildtype=debugoptimized \
    -Db_sanitize="$sanitize" -Db_lundef="$([[ $sanitize == none ]] && echo true || echo false)" ||
    give_up "meson setup ended with an error (above)"
  echo "$settings" >"$build_dir/run.settings"
fi
targets=() # with suites named: only what they need
if [[ ${#suites[@]} -gt 0 ]]; then
  names=()
  for word in "${suites[@]}"; do [[ $word == --suite ]] || names+=("$word"); done
  needed=$(python3 tests/harness/targets.py "$build_dir" "${names[@]}") || give_up "the test targets could not be listed"
  mapfile -t targets <<<"$needed"
fi
if [[ ${#suites[@]} -eq 0 || -n ${targets[0]} ]]; then
  run_child ninja -C "$build_dir" -j "$(nproc)" "${targets[@]}" || give_up "the build ended with an error (above)"
fi

# What steers other programs, proxies and a user's own settings must not steer the tests: all they talk to is here.
unset AWS_CA_BUNDLE CURL_CA_BUNDLE SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE
unset http_proxy https_proxy ftp_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY FTP_PROXY ALL_PROXY NO_PROXY
while IFS= read -r variable; do unset "$variable"; done < <(compgen -e | grep -E '^(BLOBCACHE|AWS)_')

run_dir=$(mktemp -d /tmp/blobcache-tests.XXXXXX) || give_up "no folder could be made in /tmp"
chmod 755 "$run_dir"
mark=${run_dir##*.}
export TMPDIR=$run_dir BLOBTEST_RUN=$mark BLOBTEST_LONG=$long PYTHONDONTWRITEBYTECODE=1 LC_ALL=C.UTF-8
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=1:detect_stack_use_after_return=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1

# On for the whole run: tests that mount run side by side, and none may switch it off under another.
if [[ -w $uring_switch && $(<"$uring_switch") == N ]] && echo Y >"$uring_switch" 2>/dev/null; then uring_before=N; fi

log=$build_dir/meson-logs/testlog.json
rm -f "$log"
select_tests=("${suites[@]}")
if [[ $long -eq 0 ]]; then select_tests+=(--no-suite long); fi
slow=1
if [[ $sanitize != none ]]; then slow=4; fi
run_child meson test -C "$build_dir" --no-rebuild --print-errorlogs --timeout-multiplier $slow "${select_tests[@]}"
meson_status=$?

passed=0 failed=0 skipped=0
if [[ -s $log ]]; then
  summary=$(python3 tests/harness/summary.py "$log") || give_up "the test log could not be read"
  read -r passed failed skipped <<<"$(tail -n 1 <<<"$summary")"
  head -n -1 <<<"$summary"
fi
if ! clean_up; then failed=$((failed + 1)); fi
if [[ $((passed + failed)) -eq 0 ]]; then
  echo "failed: no test was run"
  failed=1
fi
if [[ $meson_status -ne 0 && $failed -eq 0 ]]; then
  echo "failed: meson test ended with $meson_status"
  failed=1
fi

if [[ $failed -eq 0 ]]; then verdict=PASSED; else verdict=FAILED; fi
echo "$verdict: $compiler, sanitizers: $sanitize"
total="$passed passed, $failed failed"
if [[ $skipped -gt 0 ]]; then total+=", $skipped skipped"; fi
echo "$total"
[[ $failed -eq 0 ]]
