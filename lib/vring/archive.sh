#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# archive.sh OBJCOPY AR ARCHIVE DIRECTORY OBJECT... -- CC...: a static library of one object, in which
# only names of default visibility are global.

set -eu
objcopy=$1 ar=$2 archive=$3 directory=$4 objects=
shift 4
while [ "$1" != -- ]; do
	objects="$objects $1"
	shift
done
shift
mkdir -p "$directory"
# shellcheck disable=SC2086  # a list; meson's names of objects have no spaces
"$@" -r -nostdlib -o "$directory/vring.o" $objects
"$objcopy" --localize-hidden "$directory/vring.o"
rm -f "$archive"
"$ar" rcs "$archive" "$directory/vring.o"
