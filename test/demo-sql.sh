#!/bin/bash
# SPDX-License-Identifier: MIT
# A demonstration: PostgreSQL with the tables of the qmail-esmtpd set-ups, FreeRADIUS with the files of contrib/freeradius, and two mailstiles
# which share what a customer may send in a day. All private, all gone at the end. "make demo-sql" calls it. As root or as an ordinary user.
#
# MAILSTILE names the binary. Exits 0 only when every step went as it says.
set -u -o pipefail
exec < /dev/null
cd "$(dirname "$0")/.." || exit 1
export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin

began=$SECONDS
top=''
database=''
radius=''
box1=''
box2=''
as=()
limit=3

# shellcheck source=test/demo-lib.sh
. test/demo-lib.sh

cleanup() {
	local rc=$? log
	trap - EXIT
	trap '' HUP INT TERM
	if ((rc != 0)) && test -n "$top"; then
		for log in "$top/database.log" "$top/radius.log" "$top/box1.log" "$top/box2.log"; do
			if test -s "$log"; then
				printf '\nThe end of %s:\n' "${log##*/}" >&2
				tail -n 20 "$log" | show >&2
			fi
		done
	fi
	test -z "$box1" || stop "$box1" box1
	test -z "$box2" || stop "$box2" box2
	test -z "$radius" || stop "$radius" FreeRADIUS
	test -z "$database" || stop_database
	test -z "$top" || rm -rf "$top"
	exit $rc
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

pg_ctl() {
	(cd / && "${as[@]}" "${pg%/initdb}/pg_ctl" -D "$top/pg" -w "$@") >> "$top/database.log" 2>&1
}

stop_database() {
	pg_ctl -m fast stop
}

sql() {
	"${as[@]}" psql -X -q -v ON_ERROR_STOP=1 -h "$top" -U postgres "$@"
}

# send BOX [WORD...]: one message through that box; the transcript in $top/BOX.said
send() {
	local box=$1 port
	shift
	port=$(sed -n 's/^submission 127.0.0.1://p' "$top/$box/control/listen")
	timeout 60 swaks --server 127.0.0.1 --port "$port" -tls --helo laptop.customer.example --from alice@customer.example --to bob@far.example \
		--h-Subject 'a message from the road' --body 'Hello Bob' --auth PLAIN --auth-user alice --auth-password "$password" "$@" > "$top/$box.said" 2>&1
}

said() {
	transcript "$top/$1.said" | sed 's/\(> AUTH PLAIN \).*/\1(name and password)/' | sed -n '/AUTH PLAIN/,$p' | show
}

radclient() {
	command radclient -x -r 2 -t 3 -D "$top/client" "$@" 2>&1
}

# counted SESSIONS: has the database heard of so many sessions?
counted() {
	test "$(sql -A -t -d qmail -c 'select count(*) from mailstile_sessions where stopped and messages > 0')" = "$1"
}

# heard SESSIONS: wait until the database has
heard() {
	local n
	for ((n = 0; n < 100; n++)); do
		counted "$1" && return
		sleep 0.1
	done
	fail "the database has not heard of $1 sessions"
}

tables() {
	explain "\$ psql qmail"
	sql -d qmail -c 'select id, name, left(pw, 12) || $$...$$ as pw, sysuser, hostname, ip, dir from poppass order by id' | show
	sql -d qmail -c 'select * from sendcounts order by id' | show
}

# ---- 1

step "1. What is needed"
if test -z "${MAILSTILE:-}"; then
	test/install-deps.sh build demo demo-sql || fail "packages are missing"
	make -s all || fail "the build failed"
	MAILSTILE=$PWD/mailstile
fi
pg=$(find /usr/lib/postgresql -path '*/bin/initdb' 2> /dev/null | sort -V | tail -n 1)
for tool in freeradius radclient swaks python3 openssl setpriv timeout psql "${pg:-initdb}"; do
	command -v "$tool" > /dev/null || fail "$tool is not installed; try: test/install-deps.sh build demo demo-sql"
done
top=$(mktemp -d "${TMPDIR:-/tmp}/mailstile-demo.XXXXXX") || fail "no temporary directory"
chmod 755 "$top"
install -m 755 "$MAILSTILE" "$top/mailstile" || fail "cannot copy $MAILSTILE"
if test "$(id -u)" = 0; then
	as=(setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all)
	chown 65534:65534 "$top"
fi
explain "Program:    $("$top/mailstile" version)" "Directory:  $top"

step "2. A database, as qmail-esmtpd had it"
secret=$(random_word)
password=$(random_word)
(cd / && "${as[@]}" "$pg" -D "$top/pg" -A trust -U postgres -E UTF8 --locale=C --no-sync) > "$top/initdb.log" 2>&1 || fail "$(cat "$top/initdb.log")"
pg_ctl -o "-k $top -c listen_addresses= -c fsync=off" start || fail "PostgreSQL does not start"
database=yes
sql -d postgres -c 'create role freerad login' -c 'create database qmail' || fail "cannot make the database"
sql -d qmail < contrib/freeradius/schema.sql > "$top/schema.log" 2>&1 || fail "$(cat "$top/schema.log")"
hash=$(openssl passwd -6 -stdin <<< "$password")
sql -d qmail -c "insert into poppass values (1, 'alice', '$hash', 'vmail', 'mail.demo.example', '127.0.0.1', '/var/qmail/vmail/alice')" \
	-c "insert into mailstile_limits values (1, $limit)" || fail "cannot make a customer"
explain "Alice is a customer, and may send $limit messages a day."
tables

step "3. FreeRADIUS, with the files of contrib/freeradius"
until read -r radius_port submission1 submission2 acct_port <<< "$(ports 4)" && python3 -c '
import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind(("127.0.0.1", int(sys.argv[1]) + 1))' "$radius_port" 2> "$top/ports" &&
	test "$acct_port" != $((radius_port + 1)); do
	:
done
mkdir "$top/raddb" "$top/client" || fail "cannot write to $top"
sed "s|dbname=qmail|host=$top dbname=qmail|" contrib/freeradius/sql-mailstile > "$top/raddb/sql-mailstile"
sed "s/ipaddr = \*/ipaddr = 127.0.0.1/; s/port = 1812/port = $radius_port/; s/port = 1813/port = $((radius_port + 1))/" \
	contrib/freeradius/site-mailstile > "$top/raddb/site-mailstile"
cp contrib/freeradius/dictionary.mailstile "$top"
echo "\$INCLUDE $top/dictionary.mailstile" > "$top/raddb/dictionary"
{
	echo "\$INCLUDE /usr/share/freeradius/dictionary"
	cat "$top/raddb/dictionary"
} > "$top/client/dictionary"
cat > "$top/raddb/radiusd.conf" << END
raddbdir = $top/raddb
logdir = \${raddbdir}
radacctdir = \${raddbdir}
libdir = /usr/lib/freeradius
pidfile = \${raddbdir}/pid
log {
	destination = stdout
	auth = yes
}
security {
	reject_delay = 0
}
modules {
	pap {
	}
	expr {
	}
	always handled {
		rcode = handled
	}
	always ok {
		rcode = ok
	}
	\$INCLUDE \${raddbdir}/sql-mailstile
}
client boxes {
	ipaddr = 127.0.0.1
	secret = $secret
	require_message_authenticator = no
}
\$INCLUDE \${raddbdir}/site-mailstile
END
test ${#as[@]} = 0 || chown -R 65534:65534 "$top/raddb"
"${as[@]}" freeradius -f -l stdout -d "$top/raddb" > "$top/radius.log" 2>&1 &
radius=$!
radius_ready() {
	kill -0 "$radius" 2> /dev/null || fail "FreeRADIUS has ended"
	grep -q 'Ready to process requests' "$top/radius.log"
}
try "FreeRADIUS" radius_ready
explain "It listens on 127.0.0.1, $radius_port for logins and $((radius_port + 1)) for accounting."

# box NAME PORT: a mailstile with a home of its own
box() {
	local control=$top/$1/control
	mkdir -p "$control" || fail "cannot write to $top"
	echo "$1.demo.example" > "$control/me"
	echo off > "$control/relay"
	echo "submission 127.0.0.1:$2" > "$control/listen"
	(umask 077 && echo "127.0.0.1:$radius_port $secret 2 2 acct=$((radius_port + 1))" > "$control/radius.conf")
	test ${#as[@]} = 0 || chown -R 65534:65534 "$top/$1"
	"${as[@]}" "$top/mailstile" mkqueue -H "$top/$1" > "$top/mkqueue.log" 2>&1 || fail "$(cat "$top/mkqueue.log")"
}

up() {
	kill -0 "$2" 2> /dev/null || fail "$1 has ended"
	grep -qs '^ev=start ' "$top/$1.log"
}

step "4. Two boxes"
box box1 "$submission1"
box box2 "$submission2"
"${as[@]}" "$top/mailstile" serve -H "$top/box1" > "$top/box1.log" 2>&1 &
box1=$!
"${as[@]}" "$top/mailstile" serve -H "$top/box2" > "$top/box2.log" 2>&1 &
box2=$!
try "box1" up box1 $box1
try "box2" up box2 $box2
explain "box1 on 127.0.0.1:$submission1, box2 on 127.0.0.1:$submission2."

step "5. Alice sends two messages through the first"
for n in 1 2; do
	send box1 || { said box1; fail "the message was not accepted"; }
	heard $n
done
said box1
tables

step "6. And one through the second"
send box2 || { said box2; fail "the message was not accepted"; }
heard 3
said box2
tables
count=$(sql -A -t -d qmail -c 'select count, total_count from sendcounts where last_send = current_date')
test "$count" = "$limit|$limit" || fail "expected $limit messages in sendcounts, there is '$count'"

step "7. That is all for today, on either box"
left=$(radclient "127.0.0.1:$radius_port" auth "$secret" <<< "User-Name=alice,User-Password=$password,NAS-Identifier=box1.demo.example,Message-Authenticator=0x00")
sed -n '/^Received/,$p' <<< "$left" | show
expect "$left" 'Access-Accept'
expect "$left" 'Mailstile-Day-Messages = 0'
explain "The login is right, and nothing is left."
for box in box1 box2; do
	send $box && fail "$box took one message too many"
	said $box
	grep -qE '^<~\* [45]' "$top/$box.said" || fail "expected a refusal"
	grep -qE '^<~  235 ' "$top/$box.said" || fail "expected the login to be right"
done
explain "Refused on both."

step "8. The end"
for name in box1 box2; do
	stop "${!name}" $name || fail "$name ended with status $?"
	printf -v "$name" ''
	if grep -qF -e "$password" -e "$secret" "$top/$name.log"; then
		fail "a password or a secret is in the log of $name"
	fi
done
stop "$radius" FreeRADIUS
radius=''
stop_database
database=''
left=$(leftovers)
test -z "$left" || fail "still running: $left"
explain "All servers are stopped, nothing is left running, and $top is removed."
printf '\ndemo: all went as it should, in %d seconds\n' $((SECONDS - began))
