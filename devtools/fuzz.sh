#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Set up, build and run the fuzzers; doc/fuzzing.md tells what they do.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
# shellcheck source=/dev/null
. devtools/lib/common.sh

usage() {
	cat <<'EOT'
usage: devtools/fuzz.sh [SECONDS] [--target NAME]... [--help]

Installs what is missing, builds the fuzzers with clang into build-fuzz/, and runs each of them
(split, packed, raw, gso, gate, vfio_user, registers) for its part of SECONDS, 60 if not given, one
after the other. What was found to be worth keeping stays in build-fuzz/corpus/ for the next run.

  --target NAME  only this one; may be given several times

Exit code: 0 nothing found, 1 a crash or something could not be run, 2 wrong usage. Of a crash the
input is kept in build-fuzz/crashes/, and the command that runs it again is printed.
EOT
}

seconds=60
targets=()
while [ $# -gt 0 ]; do
	case $1 in
	--target)
		case ${2-} in
		split | packed | raw | gso | gate | vfio_user | registers | blk) targets+=("$2") ;;
		*) fail 2 "--target: ${2:-nothing} is no target (see --help)" ;;
		esac
		shift
		;;
	-h | --help)
		usage
		exit 0
		;;
	-*) fail 2 "unknown option $1 (see --help)" ;;
	*)
		[[ $1 =~ ^[1-9][0-9]{0,6}$ ]] || fail 2 "SECONDS: $1 is not a number from 1 to 9999999"
		seconds=$1
		;;
	esac
	shift
done
[ ${#targets[@]} -gt 0 ] || targets=(split packed raw gso gate vfio_user registers blk)

packages "${BUILD_PACKAGES[@]}" clang
# the fuzzer's runtime is a package of its own, which clang only recommends
packages "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"

dir=build-fuzz
if [ ! -f $dir/build.ninja ]; then
	CC=clang meson setup $dir -Dfuzz=true -Dbuildtype=debugoptimized \
		-Db_sanitize=address,undefined -Db_lundef=false </dev/null
fi
programs=()
for t in "${targets[@]}"; do
	programs+=("test/fuzz/fuzz_$t" "test/fuzz/replay_$t")
done
ninja -C $dir -j2 "${programs[@]}" </dev/null

export ASAN_OPTIONS=detect_leaks=1
export UBSAN_OPTIONS=print_stacktrace=1
each=$((seconds / ${#targets[@]}))
[ $each -gt 0 ] || each=1
failed=()
for t in "${targets[@]}"; do
	# seeds are made anew: they follow the format of inputs
	rm -rf "$dir/seeds/$t"
	mkdir -p "$dir/seeds/$t" "$dir/corpus/$t" $dir/crashes
	if ! "$dir/test/fuzz/replay_$t" --write-seeds "$dir/seeds/$t"; then
		failed+=("$t")
		say "$t failed with a right driver: $dir/test/fuzz/replay_$t --write-seeds DIRECTORY"
		continue
	fi
	len=3116 # the head and as many records as are carried out
	[ "$t" != raw ] || len=40000
	[ "$t" != gso ] || len=2000
	[ "$t" != gate ] || len=16428
	[ "$t" != vfio_user ] || len=8236
	[ "$t" != registers ] || len=8236
	known=()
	[ ! -d "test/fuzz/regressions/$t" ] || known=("test/fuzz/regressions/$t")
	# what memory of EAL's points to would be called a leak while it runs
	leaks=1
	[ "$t" != registers ] || leaks=0
	log=$dir/fuzz-$t.log
	say "$t: $each seconds"
	status=0
	"$dir/test/fuzz/fuzz_$t" -max_total_time=$each -max_len=$len -timeout=20 -rss_limit_mb=4096 \
		-detect_leaks=$leaks -print_final_stats=1 -artifact_prefix="$dir/crashes/$t-" \
		"$dir/corpus/$t" "$dir/seeds/$t" ${known[@]+"${known[@]}"} \
		</dev/null >"$log" 2>&1 || status=$?
	edges=$(grep -ao 'cov: [0-9]*' "$log" | tail -1 | cut -d' ' -f2) || :
	runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
	echo "$t: ${runs:-no} executions, ${edges:-no} edges"
	if [ $status -ne 0 ]; then
		failed+=("$t")
		grep -aE -m 5 'does not hold|ERROR: |runtime error|SUMMARY: ' "$log" || tail -5 "$log"
		input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -1)
		say "$t failed: see $log"
		[ -z "$input" ] || say "again: FUZZ_TRACE=1 $dir/test/fuzz/replay_$t $input"
	fi
done
[ ${#failed[@]} -eq 0 ] || fail 1 "failed: ${failed[*]}"
