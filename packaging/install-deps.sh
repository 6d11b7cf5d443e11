#!/usr/bin/env bash
# Installs what a step needs from the distribution, and only what is missing.
#   install-deps.sh build   what compiles and runs the program
#   install-deps.sh test    and what its tests use
#   install-deps.sh ci      and the second compiler with its sanitizers
# Without recommended packages, and without starting the service that prometheus (for promtool) brings.
# Exit: 0 all there, 3 something is missing and cannot be had (it is named).
# shellcheck disable=SC2034 # the lists are used by name
set -euo pipefail

profile=${1:-build}
case $profile in build | test | ci) ;; *) echo "usage: $0 build|test|ci" >&2; exit 2 ;; esac

# doctest comes without a pkg-config file on Debian: meson finds it through cmake.
apt_build=(meson ninja-build pkg-config g++ git python3 liburing-dev libfuse3-dev fuse3 libxxhash-dev libcli11-dev
  libtomlplusplus-dev libfmt-dev libssl-dev libcurl4-openssl-dev libpugixml-dev nlohmann-json3-dev libboost-dev
  systemtap-sdt-dev)
apt_test=(doctest-dev cmake ccache fio strace sqlite3 attr xfsprogs e2fsprogs xxhash prometheus)
apt_ci=(clang-19 libclang-rt-19-dev)
# Better with them, but their absence stops nothing: the tests then say what they did not check.
# chromium takes most of a minute; the fonts are for its screenshots.
apt_test_optional=(clang-format-19 bpftrace chromium fonts-inter zsh fish)

dnf_build=(meson ninja-build pkgconf-pkg-config gcc-c++ git-core python3 liburing-devel fuse3-devel fuse3 xxhash-devel
  cli11-devel tomlplusplus-devel fmt-devel openssl-devel libcurl-devel pugixml-devel json-devel boost-devel
  systemtap-sdt-devel)
dnf_test=(doctest-devel cmake ccache fio strace sqlite attr xfsprogs e2fsprogs xxhash)
dnf_ci=(clang compiler-rt)
dnf_test_optional=(golang-github-prometheus bpftrace chromium zsh fish)

choose() { # BUILD TEST CI OPTIONAL, the names of four lists: fills wanted and optional for the profile
  local -n build=$1 test=$2 ci=$3 test_optional=$4
  wanted=("${build[@]}")
  optional=()
  if [[ $profile != build ]]; then
    wanted+=("${test[@]}")
    optional=("${test_optional[@]}")
  fi
  if [[ $profile == ci ]]; then wanted+=("${ci[@]}"); fi
}

missing_of() { # PACKAGE...: prints those that are not installed
  local package
  for package in "$@"; do
    is_installed "$package" || echo "$package"
  done
}

fail() {
  echo "install-deps: $1" >&2
  exit 3
}

without_services() { # COMMAND...: what it installs starts nothing
  local policy=/usr/sbin/policy-rc.d made=0 status=0
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    made=1
  fi
  "$@" || status=$?
  if ((made == 1)); then rm -f "$policy"; fi
  return "$status"
}

need_root() {
  [[ $(id -u) -eq 0 ]] || fail "missing: $* - install them, or run this as root (sudo)"
}

if command -v apt-get >/dev/null; then
  is_installed() { [[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }
  choose apt_build apt_test apt_ci apt_test_optional
  mapfile -t missing < <(missing_of "${wanted[@]}")
  mapfile -t missing_optional < <(missing_of "${optional[@]}")
  if [[ ${#missing[@]} -gt 0 ]] || { [[ ${#missing_optional[@]} -gt 0 ]] && [[ $(id -u) -eq 0 ]]; }; then
    need_root "${missing[@]}"
    echo "install-deps: installing ${missing[*]} ${missing_optional[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || fail "apt-get update failed: check /etc/apt/sources.list and the network"
    for package in "${missing_optional[@]}"; do
      if apt-cache show "$package" >/dev/null 2>&1; then missing+=("$package"); fi
    done
    if [[ ${#missing[@]} -gt 0 ]]; then
      without_services apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        fail "apt-get could not install: ${missing[*]}"
    fi
  fi
elif command -v dnf >/dev/null; then
  is_installed() { rpm -q --whatprovides "$1" >/dev/null 2>&1; }
  choose dnf_build dnf_test dnf_ci dnf_test_optional
  mapfile -t missing < <(missing_of "${wanted[@]}")
  if [[ ${#missing[@]} -gt 0 ]]; then
    need_root "${missing[@]}"
    echo "install-deps: installing ${missing[*]}"
    dnf install -y -q --setopt=install_weak_deps=False "${missing[@]}" || fail "dnf could not install: ${missing[*]}"
  fi
else
  fail "neither apt-get nor dnf here: install by hand what corresponds to ${apt_build[*]}"
fi
