#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# A Linux guest whose network cards are vhost-user sockets; devtools/lib/guest_shell.py knows the options.
set -euo pipefail
top=$(dirname "$(readlink -f "$0")")/..
# shellcheck source=/dev/null
. "$top/devtools/lib/common.sh"
[ -x /usr/bin/python3 ] || packages python3
PYTHONDONTWRITEBYTECODE=1 exec /usr/bin/python3 "$top/devtools/lib/guest_shell.py" "$@"
