# SPDX-License-Identifier: MIT
# shellcheck shell=dash disable=SC2154 # config_get sets variables by name
# Control files from /etc/config/mailstile. Needs OpenWrt's /lib/functions.sh; sourced by /etc/init.d/mailstile.
#
# These control files belong to UCI: each is written when its options say something else than it does, and removed when there are none. All other
# control files stay as they are: certificates, virtualdomains and so on. A value that would make a line of its own is refused, and then nothing
# is changed.
MAILSTILE_FILES="me databytes alertto timezone delaynotice userlimits relayclients rcpthosts badmailfrom radius.conf listen smtproutes smtptls smtpauth"

# A value that a control file can hold: one line.
mailstile_value() {
	case $2 in
	*'
'*) mailstile_bad "$1 has more than one line" ;;
	esac
}

mailstile_bad() {
	echo "/etc/config/mailstile: $1" >&2
	mailstile_refused=1
}

# mailstile_word WHAT VALUE: no white space either, which would begin another field.
mailstile_word() {
	mailstile_value "$1" "$2"
	case $2 in
	*[[:space:]]*) mailstile_bad "$1 has white space in it" ;;
	esac
}

# mailstile_line OPTION FILE
mailstile_line() {
	local value
	config_get value main "$1"
	test -n "$value" || return 0
	mailstile_value "$1" "$value"
	printf '%s\n' "$value" > "$mailstile_new/$2"
}

# mailstile_entry VALUE FILE, for lists
mailstile_entry() {
	mailstile_value "a line of $2" "$1"
	printf '%s\n' "$1" >> "$mailstile_new/$2"
}

mailstile_radius() {
	local server port secret timeout retries unsigned acct
	config_get server "$1" server
	config_get port "$1" port
	config_get secret "$1" secret
	config_get timeout "$1" timeout
	config_get retries "$1" retries
	config_get_bool unsigned "$1" unsigned 0
	config_get acct "$1" acct
	test -n "$server" || mailstile_bad "a radius section has no server"
	test -n "$secret" || mailstile_bad "radius $server has no secret"
	mailstile_word "server" "$server"
	mailstile_word "port of $server" "$port"
	mailstile_word "the secret of $server" "$secret"
	mailstile_word "timeout of $server" "$timeout"
	mailstile_word "retries of $server" "$retries"
	mailstile_word "acct of $server" "$acct"
	case $server in
	\[*) ;;
	*:*) server="[$server]" ;;
	esac
	# The number of repeats comes after the time between them.
	test -z "$retries" || timeout=${timeout:-2}
	set -- "$server${port:+:$port}" "$secret" ${timeout:+"$timeout"} ${retries:+"$retries"}
	test "$unsigned" = 0 || set -- "$@" unsigned
	case $acct in
	'' | 0) ;;
	1) set -- "$@" acct ;;
	*) set -- "$@" "acct=$acct" ;;
	esac
	echo "$*" >> "$mailstile_new/radius.conf"
}

mailstile_listen() {
	local profile address port from
	config_get profile "$1" profile
	config_get address "$1" address
	config_get port "$1" port
	config_get from "$1" from
	mailstile_word "profile" "$profile"
	mailstile_word "address" "$address"
	mailstile_word "port" "$port"
	mailstile_word "from" "$from"
	case $address in
	\[*) ;;
	*:*) address="[$address]" ;;
	esac
	echo "$profile ${address:+$address:}$port${from:+ from=$from}" >> "$mailstile_new/listen"
}

# mailstile_relay RELAY: what smtptls and smtpauth say of it, under its name without the port
mailstile_relay() {
	local key
	mailstile_word "a relay" "$1"
	mailstile_relays="$mailstile_relays $1"
	case $1 in
	\[*) key="${1%%]*}]" ;;
	*) key=${1%%:*} ;;
	esac
	test -z "$mailstile_tls" || printf '%s:%s\n' "$key" "$mailstile_tls" >> "$mailstile_new/smtptls"
	test -z "$mailstile_user" || printf '%s:%s:%s\n' "$key" "$mailstile_user" "$mailstile_password" >> "$mailstile_new/smtpauth"
}

mailstile_route() {
	local domain
	config_get domain "$1" domain
	config_get mailstile_tls "$1" tls
	config_get mailstile_user "$1" user
	config_get mailstile_password "$1" password
	mailstile_word "domain" "$domain"
	mailstile_value "tls" "$mailstile_tls"
	mailstile_value "user" "$mailstile_user"
	mailstile_value "the password of $mailstile_user" "$mailstile_password"
	case $domain$mailstile_user in
	*:*) mailstile_bad "there must be no colon in domain and user" ;;
	esac
	mailstile_relays=''
	config_list_foreach "$1" relay mailstile_relay
	printf '%s:%s\n' "$domain" "${mailstile_relays# }" >> "$mailstile_new/smtproutes"
}

# mailstile_undo HOME: the files as they were before mailstile_translate.
mailstile_undo() {
	local file
	for file in $MAILSTILE_FILES; do
		if test -e "$1/control/.uci.old/$file"; then
			mv "$1/control/.uci.old/$file" "$1/control/$file"
		elif test -e "$1/control/.uci.old/no-$file"; then
			rm -f "$1/control/$file"
		fi
	done
	rm -rf "$1/control/.uci.old"
	sync
}

# mailstile_settle HOME: the files that were there before are not wanted any more.
mailstile_settle() {
	rm -rf "$1/control/.uci.old"
}

# mailstile_translate HOME: 0 done; 1 refused, and nothing is changed.
mailstile_translate() {
	local file mask mailstile_tls mailstile_user mailstile_password mailstile_relays
	mailstile_new=$1/control/.uci
	mailstile_refused=''
	mask=$(umask)
	umask 077
	rm -rf "$mailstile_new" "$1/control/.uci.old"
	mkdir -p "$mailstile_new" "$1/control/.uci.old" || return 1
	config_load mailstile
	mailstile_line hostname me
	mailstile_line databytes databytes
	mailstile_line alertto alertto
	mailstile_line timezone timezone
	mailstile_line delaynotice delaynotice
	config_list_foreach main userlimit mailstile_entry userlimits
	config_list_foreach main relayclient mailstile_entry relayclients
	config_list_foreach main rcpthost mailstile_entry rcpthosts
	config_list_foreach main badmailfrom mailstile_entry badmailfrom
	config_foreach mailstile_radius radius
	config_foreach mailstile_listen listen
	config_foreach mailstile_route route
	if test -n "$mailstile_refused"; then
		rm -rf "$mailstile_new"
		umask "$mask"
		return 1
	fi
	for file in $MAILSTILE_FILES; do
		# The flash is not written for nothing.
		cmp -s "$mailstile_new/$file" "$1/control/$file" && continue
		if test -e "$1/control/$file"; then
			cp -p "$1/control/$file" "$1/control/.uci.old/$file" || return 1
		elif test -e "$mailstile_new/$file"; then
			: > "$1/control/.uci.old/no-$file"
		fi
		if test -e "$mailstile_new/$file"; then
			case $file in
			radius.conf | smtpauth) ;;
			*) chmod 644 "$mailstile_new/$file" ;;
			esac
			mv "$mailstile_new/$file" "$1/control/$file" || return 1
		else
			rm -f "$1/control/$file"
		fi
	done
	umask "$mask"
	rm -rf "$mailstile_new"
	sync
}
