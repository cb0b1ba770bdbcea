#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Set up, build and run the tests.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
# shellcheck source=/dev/null
. devtools/common.sh

usage() {
	cat <<'EOF'
usage: devtools/test.sh [SUITE...] [--sanitize] [--help] [-- RUNNER-ARGS]

Installs what is missing, reserves hugepages, builds with warnings as errors, and runs the suites
(all of them if none is named):

  unit      the parts without EAL, and a build with clang   (meson test)
  driver    the vDPA driver inside EAL                      (meson test)
  topology  real clients: testpmd, QEMU guests, one process (pytest)

  --sanitize     build and run with the address and undefined-behaviour sanitizers, in
                 build-sanitize/ instead of build/
  RUNNER-ARGS    go to the suite's runner: devtools/test.sh topology -- -k packed

Exit code: 0 all passed, 1 something failed or could not be run, 2 wrong usage.
EOF
}

suites=()
sanitize=no
runner_args=()
while [ $# -gt 0 ]; do
	case $1 in
	unit | driver | topology) suites+=("$1") ;;
	--sanitize) sanitize=yes ;;
	-h | --help)
		usage
		exit 0
		;;
	--)
		shift
		runner_args=("$@")
		break
		;;
	-*) fail 2 "unknown option $1 (see --help)" ;;
	*) fail 2 "unknown suite $1: unit, driver or topology" ;;
	esac
	shift
done
[ ${#suites[@]} -gt 0 ] || suites=(unit driver topology)
if [ ${#runner_args[@]} -gt 0 ] && [[ " ${suites[*]} " == *" topology "* ]] &&
	[ ${#suites[@]} -gt 1 ]; then
	fail 2 "arguments after -- are for one runner: name topology alone, or unit and driver"
fi

packages "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
if [[ " ${suites[*]} " == *" topology "* ]]; then
	hugepages 512
fi
if [ $sanitize = yes ]; then
	dir=build-sanitize
	export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:halt_on_error=1
	export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
	build $dir -Dbuildtype=debugoptimized -Dwerror=true -Db_sanitize=address,undefined \
		-Db_lundef=false
else
	dir=build
	build $dir -Dbuildtype=release -Dwerror=true
	# clang has warnings of its own
	[[ " ${suites[*]} " != *" unit "* ]] || CC=clang build build-clang -Dwerror=true
fi

# meson_suite NAME [RUNNER-ARGS]: nothing to run is a failure, which meson itself passes over.
meson_suite() {
	local run=(meson test -C "$dir" --no-rebuild --suite "$@") tests

	tests=$("${run[@]}" --list 2>/dev/null </dev/null | sed '/^No suitable/d') || :
	if [ -z "$tests" ]; then
		say "no such test in suite $1"
		return 1
	fi
	"${run[@]}" --print-errorlogs </dev/null
}

topology_suite() {
	VFN_BUILD=$PWD/$dir PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -m pytest -rs \
		-p no:cacheprovider test/topology ${runner_args[@]+"${runner_args[@]}"} </dev/null
}

failed=()
for suite in "${suites[@]}"; do
	case $suite in
	topology) topology_suite || failed+=("$suite") ;;
	*) meson_suite "$suite" ${runner_args[@]+"${runner_args[@]}"} || failed+=("$suite") ;;
	esac
done
[ ${#failed[@]} -eq 0 ] || fail 1 "failed: ${failed[*]}"
say "passed: ${suites[*]}"
