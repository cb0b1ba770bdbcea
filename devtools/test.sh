#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Set up, build and run the tests.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
# shellcheck source=/dev/null
. devtools/lib/common.sh

usage() {
	cat <<'EOF'
usage: devtools/test.sh [SUITE...] [--sanitize | --coverage | --tsan] [--nightly] [--help]
                        [-- RUNNER-ARGS]

Installs what is missing, reserves hugepages, builds with warnings as errors, and runs the suites
(all of them if none is named):

  unit      the parts without EAL, and a build with clang   (meson test)
  driver    the vDPA driver inside EAL                      (meson test)
  topology  real clients: testpmd, QEMU guests, one process (pytest)
  isolation an honest tenant beside a hostile one: every message, any order, random (pytest)

  --sanitize     build and run with the address and undefined-behaviour sanitizers, in
                 build-sanitize/ instead of build/
  --coverage     build in build-coverage/, run the suites (unit if none is named), and print which
                 of lib/vring's lines and branches they reach; fails below 95% of the lines
  --tsan         build the unit tests of several threads with ThreadSanitizer, in build-tsan/, and
                 run these; doc/concurrency.md
  --nightly      the long form of tests that have a short one: hours
  RUNNER-ARGS    go to the suite's runner: devtools/test.sh topology -- -k packed

Exit code: 0 all passed, 1 something failed or could not be run, 2 wrong usage.
EOF
}

suites=()
mode=plain
runner_args=()
while [ $# -gt 0 ]; do
	case $1 in
	unit | driver | topology | isolation) suites+=("$1") ;;
	--sanitize | --coverage | --tsan)
		[ "$mode" = plain ] || [ "$mode" = "${1#--}" ] || fail 2 "--$mode and $1: one at a time"
		mode=${1#--}
		;;
	--nightly) export VFN_NIGHTLY=1 ;;
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
	*) fail 2 "unknown suite $1: unit, driver, topology or isolation" ;;
	esac
	shift
done
if [ "$mode" = tsan ]; then
	[ ${#suites[@]} -eq 0 ] || [ "${suites[*]}" = unit ] || fail 2 "--tsan is for unit only"
	[ ${#runner_args[@]} -gt 0 ] || runner_args=(threads dirty_threads)
fi
if [ ${#suites[@]} -eq 0 ]; then
	suites=(unit)
	[ "$mode" = coverage ] || [ "$mode" = tsan ] || suites+=(driver topology isolation)
fi
if [ ${#runner_args[@]} -gt 0 ] && [ ${#suites[@]} -gt 1 ] &&
	[[ " ${suites[*]} " == *" topology "* || " ${suites[*]} " == *" isolation "* ]]; then
	fail 2 "arguments after -- are for one runner: topology or isolation alone, or unit and driver"
fi

packages "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
if [[ " ${suites[*]} " == *" topology "* ]]; then
	hugepages 768
fi
dir=build
[ "$mode" = plain ] || dir=build-$mode
case $mode in
sanitize)
	export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:halt_on_error=1
	export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
	build "$dir" -Dbuildtype=debugoptimized -Dwerror=true -Db_sanitize=address,undefined \
		-Db_lundef=false
	;;
coverage)
	packages "${COVERAGE_PACKAGES[@]}"
	# counters of several threads; gcc takes variables for uninitialized among the counters
	CC=gcc build "$dir" -Dbuildtype=debugoptimized -Db_coverage=true \
		-Dc_args='-fprofile-update=atomic -Wno-maybe-uninitialized'
	# what earlier runs reached, and sources that are gone
	find "$dir" -name '*.gcda' -delete
	for note in "$dir"/lib/vring/libvring.*/*.gcno; do
		name=${note##*/}
		[ -e "lib/vring/${name%.gcno}" ] || rm "$note"
	done
	;;
tsan)
	# shellcheck disable=SC2034  # of build()
	build_targets=(test/unit/test_threads test/unit/test_dirty_threads)
	# gcc's warning that it does not know of fences: the tests don't depend on that
	CC=gcc build "$dir" -Dbuildtype=debugoptimized -Db_sanitize=thread -Db_lundef=false \
		-Dc_args=-Wno-tsan
	;;
plain)
	build "$dir" -Dbuildtype=release -Dwerror=true
	# clang has warnings of its own
	[[ " ${suites[*]} " != *" unit "* ]] || CC=clang build build-clang -Dwerror=true
	;;
esac

# meson_suite NAME [RUNNER-ARGS]: nothing to run is a failure, which meson itself passes over.
meson_suite() {
	local run=(meson test -C "$dir" --no-rebuild --suite "$@") tests

	tests=$("${run[@]}" --list 2>/dev/null </dev/null | sed '/^No suitable/d') || :
	if [ -z "$tests" ]; then
		say "no such test in suite $1"
		return 1
	fi
	# instrumented programs take longer
	[ "$mode" = plain ] || run+=(--timeout-multiplier 5)
	"${run[@]}" --print-errorlogs </dev/null
}

# run_pytest NAME [ARGS]
run_pytest() {
	local name=$1
	shift
	VFN_BUILD=$PWD/$dir PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -m pytest -rs \
		-p no:cacheprovider -p no:tmpdir "test/$name" "$@" </dev/null
}

# pytest_suite NAME: most tests wait most of the time, so two files run side by side; then those
# that are marked "alone". With arguments, or at night: one after the other.
pytest_suite() {
	local code=0

	if [ ${#runner_args[@]} -gt 0 ] || [ -n "${VFN_NIGHTLY:-}" ]; then
		run_pytest "$1" ${runner_args[@]+"${runner_args[@]}"}
		return
	fi
	run_pytest "$1" -n 2 --dist loadfile -m 'not alone' || code=1
	[ "$1" != topology ] || run_pytest "$1" -m alone || code=1
	return $code
}

# The sources are also compiled in other ways, for tests and benchmarks: the library's own objects
# count. A line that is inlined into several functions has the branches of all of them.
coverage_report() {
	local report=(gcovr --root . --filter 'lib/vring/' --exclude-unreachable-branches)

	report+=("$dir"/lib/vring/libvring.*/)
	"${report[@]}" --branches && "${report[@]}" --fail-under-line 95
}

failed=()
for suite in "${suites[@]}"; do
	case $suite in
	topology | isolation) pytest_suite "$suite" || failed+=("$suite") ;;
	*) meson_suite "$suite" ${runner_args[@]+"${runner_args[@]}"} || failed+=("$suite") ;;
	esac
done
if [ "$mode" = coverage ] && ! coverage_report; then
	failed+=("coverage: less than 95% of lib/vring's lines were run, or gcovr failed")
fi
[ ${#failed[@]} -eq 0 ] || fail 1 "failed: ${failed[*]}"
say "passed: ${suites[*]}"
