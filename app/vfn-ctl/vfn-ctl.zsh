#compdef vfn-ctl
# SPDX-License-Identifier: BSD-3-Clause

_vfn_ctl_column() {
	local -a words
	words=(${(f)"$(vfn-ctl list 2>/dev/null | awk -v column=$1 'NR > 1 {print $column}' | sort -u)"})
	compadd -a words
}

_arguments -C \
	'(-f --file-prefix)'{-f,--file-prefix}'[ask only the process with this prefix]:prefix:_vfn_ctl_column 3' \
	'--json[answer in JSON]' \
	'(- *)--version[tell the version]' \
	'(- *)'{-h,--help}'[tell what there is]' \
	'1:command:(list info stats top set announce snapshot restore)' \
	'2:name:_vfn_ctl_column 1' \
	'*:: :->rest'

case $state in
rest)
	case $line[1] in
	set) _values -w setting 'link:state:(up down)' 'mtu:bytes' 'mac:address' 'rate:limit' 'size:bytes' ;;
	snapshot | restore) _files ;;
	esac
	;;
esac
