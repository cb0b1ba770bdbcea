# SPDX-License-Identifier: BSD-3-Clause
# bash completion of vfn-ctl: commands, names of functions, keys

_vfn_ctl() {
	local commands="list info stats top set announce snapshot restore"
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command="" name="" word i

	if [[ $cur == = ]]; then
		cur=""
	fi
	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		case $word in
		-f | --file-prefix | -i | --interval | -n | --count) ((i++)) ;;
		-*) ;;
		*) if [[ -z $command ]]; then command=$word; elif [[ -z $name ]]; then name=$word; fi ;;
		esac
	done
	if [[ $prev == -f || $prev == --file-prefix ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$(vfn-ctl list 2>/dev/null |
			awk 'NR > 1 {print $3}' | sort -u)" -- "$cur")
	elif [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "--help --json --file-prefix --version" -- "$cur")
	elif [[ -z $command ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur")
	elif [[ -z $name && $command != list ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$(vfn-ctl list 2>/dev/null |
			awk 'NR > 1 {print $1}')" -- "$cur")
	elif [[ $command == set && $prev == = ]]; then
		[[ ${COMP_WORDS[COMP_CWORD - 2]} != link ]] ||
			mapfile -t COMPREPLY < <(compgen -W "up down" -- "$cur")
	elif [[ $command == set ]]; then
		compopt -o nospace
		mapfile -t COMPREPLY < <(compgen -W "link= mtu= mac= rate= size=" -- "$cur")
	elif [[ $command == snapshot || $command == restore ]]; then
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
	fi
}
complete -F _vfn_ctl vfn-ctl
