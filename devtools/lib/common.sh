# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# What the commands share: packages, hugepages, configure, build. prepare.py is for those in Python.
# Sourced by scripts that have set -euo pipefail and are in the project's top directory.

# Debian's meson and pytest belong to Debian's python, which another python may hide.
PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH
export PATH

# shellcheck disable=SC2034  # used by the scripts that source this
readonly BUILD_PACKAGES=(dpdk dpdk-dev libdpdk-dev libnuma-dev libseccomp-dev meson
	ninja-build pkg-config gcc libcmocka-dev libjansson-dev liburing-dev python3
	python3-pyelftools scdoc)
# shellcheck disable=SC2034
readonly TEST_PACKAGES=(clang g++ python3-pytest python3-pytest-xdist qemu-system-x86 busybox-static ethtool
	pciutils netcat-openbsd valgrind iproute2 make dpdk-doc libvirt-clients clang-format clang-tidy
	shellcheck flake8 codespell user-mode-linux tcpdump fio)
# shellcheck disable=SC2034
readonly COVERAGE_PACKAGES=(gcovr)

readonly HUGEPAGE_DIR=/sys/kernel/mm/hugepages/hugepages-2048kB

say() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# fail CODE MESSAGE
fail() {
	local code=$1
	shift
	say "$@"
	exit "$code"
}

# Run a command as root: directly, or by a sudo that asks nothing.
as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null 2>&1; then
		sudo -n "$@"
	else
		return 1
	fi
}

# packages NAME...: install those that are missing.
packages() {
	local name missing=()

	command -v dpkg-query >/dev/null 2>&1 || {
		say "no dpkg here: please see to these packages yourself: $*"
		return
	}
	for name; do
		dpkg-query -W -f '${db:Status-Status}\n' "$name" 2>/dev/null | grep -qx installed ||
			missing+=("$name")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	say "installing ${missing[*]}"
	if ! as_root apt-get -q update </dev/null ||
		! as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y install \
			--no-install-recommends "${missing[@]}" </dev/null; then
		fail 1 "cannot install packages (needs root or sudo): apt-get install ${missing[*]}"
	fi
}

# hugepages NUMBER: have that many free 2 MiB pages.
hugepages() {
	local want=$1 free total

	[ -r $HUGEPAGE_DIR/free_hugepages ] || fail 1 "this kernel has no 2 MiB hugepages"
	free=$(<$HUGEPAGE_DIR/free_hugepages)
	[ "$free" -lt "$want" ] || return 0
	total=$(($(<$HUGEPAGE_DIR/nr_hugepages) + want - free))
	say "reserving 2 MiB hugepages: $total in all"
	as_root sh -c "echo $total >$HUGEPAGE_DIR/nr_hugepages" 2>/dev/null || :
	free=$(<$HUGEPAGE_DIR/free_hugepages)
	[ "$free" -ge "$want" ] ||
		fail 1 "$want free 2 MiB hugepages are needed, $free are there; as root:" \
			"echo $total >$HUGEPAGE_DIR/nr_hugepages (memory may be too fragmented)"
}

# hugepages_back NUMBER: give so many back, as far as nobody uses them.
hugepages_back() {
	local give=$1 free
	free=$(<$HUGEPAGE_DIR/free_hugepages)
	[ "$give" -le "$free" ] || give=$free
	[ "$give" -gt 0 ] || return 0
	as_root sh -c "echo $(($(<$HUGEPAGE_DIR/nr_hugepages) - give)) >$HUGEPAGE_DIR/nr_hugepages"
	say "gave $give hugepages back"
}

build_targets=()

# build DIR [-DOPTION=VALUE...]: configure on first use, or when DIR lacks one of the options, and
# compile: build_targets, or everything.
build() {
	local dir=$1 stamp=$1/.vfn-options known=' ' option changed=no
	shift

	if [ ! -f "$dir/build.ninja" ]; then
		meson setup "$dir" "$@" </dev/null
	else
		[ ! -f "$stamp" ] || known=" $(<"$stamp") "
		for option; do
			[[ $known == *" $option "* ]] || changed=yes
		done
		[ $changed = no ] || meson configure "$dir" "$@" </dev/null
	fi
	[[ $known == *" $* "* ]] || printf '%s\n' "$*" >"$stamp"
	ninja -C "$dir" -j2 ${build_targets[@]+"${build_targets[@]}"} </dev/null
}
