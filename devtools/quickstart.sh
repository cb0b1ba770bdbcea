#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Set up, build, and show traffic through one simulated function.
set -euo pipefail
top=$(dirname "$(readlink -f "$0")")/..
# shellcheck source=/dev/null
. "$top/devtools/lib/common.sh"
[ -x /usr/bin/python3 ] || packages python3
PYTHONDONTWRITEBYTECODE=1 exec /usr/bin/python3 "$top/devtools/lib/quickstart.py" "$@"
