#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Set up, build, and show traffic through one simulated function; devtools/quickstart.py does the
# showing and knows the options.
set -euo pipefail
top=$(dirname "$(readlink -f "$0")")/..
# shellcheck source=/dev/null
. "$top/devtools/common.sh"

export PYTHONDONTWRITEBYTECODE=1
show=(/usr/bin/python3 "$top/devtools/quickstart.py")

[ -x /usr/bin/python3 ] || packages python3
"${show[@]}" --check "$@" || exit
for arg; do
	case $arg in
	-h | --help) exit 0 ;;
	esac
done

packages "${BUILD_PACKAGES[@]}"
hugepages 192
(cd "$top" && build build -Dbuildtype=release)
VFN_BUILD=$top/build exec "${show[@]}" "$@"
