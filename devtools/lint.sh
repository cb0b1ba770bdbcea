#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Look for what a reader would stumble over: format, spelling, suspicious code, licences.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
# shellcheck source=/dev/null
. devtools/lib/common.sh

usage() {
	cat <<'EOT'
usage: devtools/lint.sh [--all | FILE...] [--only CHECK]... [--fix] [--list] [--help]

Checks the files that differ from the last commit, or those named, or all of the repository. Names each
file that a check does not like, and why.

  --all         every file that is tracked
  --only CHECK  of the checks; may be repeated
  --fix         have clang-format change the files
  --list        print the names of the checks

Exit code: 0 nothing found, 1 something was, 2 wrong usage.
EOT
}

checks=(format tidy shell python spelling licence length names)
only=()
files=()
all=false
fix=false
while [ $# -gt 0 ]; do
	case $1 in
	--all) all=true ;;
	--fix) fix=true ;;
	--only)
		[[ " ${checks[*]} " == *" ${2-} "* ]] || fail 2 "--only takes one of: ${checks[*]}"
		only+=("$2")
		shift
		;;
	--list)
		printf '%s\n' "${checks[@]}"
		exit 0
		;;
	-h | --help)
		usage
		exit 0
		;;
	-*) fail 2 "unknown option $1 (see --help)" ;;
	*)
		[ -f "$1" ] || fail 2 "there is no file $1"
		files+=("$1")
		;;
	esac
	shift
done
[ ${#only[@]} -gt 0 ] || only=("${checks[@]}")
packages clang-format clang-tidy shellcheck flake8 codespell

if $all; then
	mapfile -t files < <(git ls-files)
elif [ ${#files[@]} -eq 0 ]; then
	mapfile -t files < <(git diff --name-only --diff-filter=d HEAD
		git ls-files --others --exclude-standard)
fi

# those FILES that match a regular expression, one per line
matching() {
	[ ${#files[@]} -eq 0 ] || printf '%s\n' "${files[@]}" | grep -E "$1" || :
}

# Print what comes, and fail if anything does.
nothing() {
	if grep .; then
		return 1
	fi
}

# Run a command with the files on standard input, if there are any.
each() {
	xargs -r -d '\n' "$@"
}

# examples/ are quoted by the documents as they are
c_files() {
	matching '\.[ch]$' | grep -v '^examples/' || :
}

text_files() {
	matching '.' | grep -vE '^test/fuzz/regressions/|\.(png|svg|bin)$|^LICENSE$' || :
}

check_format() {
	if $fix; then
		c_files | each clang-format -i
	else
		c_files | each clang-format --dry-run -Werror
	fi
}

# As they are compiled, once each: tests compile some of them again, in other ways.
check_tidy() {
	local build=${VFN_BUILD:-build} scratch

	[ -f "$build/compile_commands.json" ] || fail 2 "tidy needs a build: devtools/test.sh unit"
	scratch=$(mktemp -d)
	c_files | grep -E '^(app|drivers|lib)/.*\.c$' | python3 -c '
import json, os, sys
commands, wanted = {}, {os.path.realpath(line.strip()) for line in sys.stdin}
for entry in json.load(open(sys.argv[1] + "/compile_commands.json", encoding="utf-8")):
    path = os.path.realpath(os.path.join(entry["directory"], entry["file"]))
    if path in wanted and "-mindirect" not in entry["command"]:
        commands.setdefault(path, dict(entry, file=path))
with open(sys.argv[2] + "/compile_commands.json", "w", encoding="utf-8") as out:
    json.dump(list(commands.values()), out)
print(*commands, sep="\n")' "$build" "$scratch" |
		each -n 4 -P "$(nproc)" clang-tidy -p "$scratch" --quiet >"$scratch/found" 2>&1 || :
	grep -E '(error|warning): ' "$scratch/found" | grep -vE ' (warnings|errors?) generated' | sort -u >"$scratch/told" || :
	nothing <"$scratch/told" || {
		rm -rf "$scratch"
		return 1
	}
	rm -rf "$scratch"
}

check_shell() {
	local file

	while read -r file; do
		# of the guests' busybox there is no checker
		if head -n 1 "$file" | grep -qE '^#!/(bin/sh|usr/bin/env bash)'; then
			printf '%s\n' "$file"
		fi
	done < <(matching '(\.sh|run|pre-commit)$') | each shellcheck -x
}

check_python() {
	matching '\.py$' | each flake8
}

check_spelling() {
	text_files | each codespell --ignore-words=devtools/lib/spelling.txt
}

# Every file says under which licence it is, but for those that cannot.
check_licence() {
	matching '(\.([ch]|py|sh|build)|/run|/pre-commit)$' |
		{ each grep -L 'SPDX-License-Identifier: BSD-3-Clause' || :; } |
		sed 's/$/: no SPDX line/' | nothing
}

check_length() {
	local file lines

	while read -r file; do
		lines=$(wc -l <"$file")
		if [ "$lines" -gt 600 ] && ! grep -qxF "$file" devtools/lib/long-files.txt; then
			echo "$file: $lines lines, more than 600: it has more than one subject"
		fi
	done < <(matching '\.([ch]|py|sh)$') | nothing
}

# Addresses of registries come from the machine, paths from the caller.
check_names() {
	{ text_files | grep -v '^devtools/lint.sh$' || :; } | {
		each grep -nHE 'https?://[^ ]*(deb\.debian|registry\.npm|pypi)|[ "'\''=]/(home|root)/' || :
	} | nothing
}

failed=()
for check in "${only[@]}"; do
	"check_$check" || failed+=("$check")
done
[ ${#failed[@]} -eq 0 ] || fail 1 "failed: ${failed[*]}"
