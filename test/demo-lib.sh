#!/bin/bash
# SPDX-License-Identifier: MIT
# What the demonstrations have in common; they source this. $top is their directory, $as the words that start a command as nobody.
top=${top:-}

step() {
	printf '\n==== %s\n' "$1"
}

explain() {
	printf '%s\n' "$@" | sed 's/^./     &/'
}

show() {
	sed 's/^/   | /'
}

fail() {
	printf '\ndemo: FAILED: %s\n' "$*" >&2
	exit 1
}

# try WHAT COMMAND...: COMMAND may take some seconds to come true
try() {
	local what=$1 n
	shift
	for ((n = 0; n < 100; n++)); do
		"$@" && return 0
		sleep 0.1
	done
	fail "waited 10 seconds for $what in vain"
}

# stop PID NAME: ends a process we have started, and waits for it; its status
stop() {
	local n
	kill -TERM "$1" 2> /dev/null
	for ((n = 0; n < 400; n++)); do
		kill -0 "$1" 2> /dev/null || break
		sleep 0.1
	done
	if kill -KILL "$1" 2> /dev/null; then
		echo "demo: $2 did not stop by itself" >&2
	fi
	wait "$1" 2> /dev/null
}

# Processes with our directory in their command line.
leftovers() {
	local p line
	for p in /proc/[0-9]*; do
		line=$(tr '\0' ' ' 2> /dev/null < "$p/cmdline") || continue
		case $line in *"$top/"*) echo "${p#/proc/} $line" ;; esac
	done
}

# ports N: that many free ports of 127.0.0.1, free for TCP and UDP, below the range the kernel gives to clients
ports() {
	python3 - "$1" << 'END'
import random, socket, sys
found = set()
while len(found) < int(sys.argv[1]):
    port = random.randrange(20000, 32000)
    try:
        for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
            with socket.socket(socket.AF_INET, kind) as s:
                s.bind(("127.0.0.1", port))
    except OSError:
        continue
    found.add(port)
print(*found)
END
}

random_word() {
	head -c 15 /dev/urandom | base64 | tr '+/' 'xy'
}

# What was said, without the message, and of the long answer to EHLO only what matters here. swaks marks lines under TLS with ~.
transcript() {
	tr -d '\r' < "$1" | sed -n '
		/^<[-~]  250[- ]\(STARTTLS\|AUTH\)/p
		/^<[-~]  250-/d
		/^<[-~]  250 CHUNKING/d
		/^ [-~]> \(Date\|To\|From\|Subject\|Message-Id\|X-Mailer\|Hello\|$\)/d
		/^ [-~]>/p
		/^<[-~*]/p
		/^=== TLS started/p
		/^\*\*\*/p
	'
}

# expect TEXT PATTERN
expect() {
	grep -qE -e "$2" <<< "$1" || fail "expected '$2'"
}
