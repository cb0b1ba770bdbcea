#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Where the cycles of the device's CPU go: instructions per packet by stage, and time by function.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
# shellcheck source=/dev/null
. devtools/common.sh

case ${1-} in
-h | --help) exec /usr/bin/python3 devtools/bench_profile.py "$@" ;;
esac
/usr/bin/python3 devtools/bench_profile.py --check "$@"
packages "${BUILD_PACKAGES[@]}" valgrind
hugepages 256
# shellcheck disable=SC2034  # of build()
build_targets=(app/vfn-vhost drivers/vdpa/vfn/librte_vdpa_vfn.so)
# the code of the release, with line numbers
build build-profile -Dbuildtype=release -Ddebug=true >&2
VFN_BUILD=$PWD/build-profile exec /usr/bin/python3 devtools/bench_profile.py "$@"
