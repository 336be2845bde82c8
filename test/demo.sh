#!/bin/bash
# SPDX-License-Identifier: MIT
# A demonstration: RADIUS server, mailstile, a mail program and a next hop on this machine, all private, all gone at the end. "make demo"
# calls it; test/demo.sh alone does the same. As root or as an ordinary user; needs no terminal; nothing listens outside 127.0.0.1.
#
# MAILSTILE names the binary; without it ./mailstile is built. Exits 0 only when every step went as it says.
set -u -o pipefail
exec < /dev/null
cd "$(dirname "$0")/.." || exit 1
export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin

began=$SECONDS
top=''
radius=''
server=''
hop=''
user=alice
as=()

# shellcheck source=test/demo-lib.sh
. test/demo-lib.sh

cleanup() {
	local rc=$?
	trap - EXIT
	trap '' HUP INT TERM
	if ((rc != 0)) && test -n "$top"; then
		for log in "$top/radius.log" "$top/hop.log" "$top/server.log"; do
			if test -s "$log"; then
				printf '\nThe end of %s:\n' "${log##*/}" >&2
				tail -n 20 "$log" | show >&2
			fi
		done
	fi
	test -z "$server" || stop "$server" mailstile
	test -z "$hop" || stop "$hop" aiosmtpd
	test -z "$radius" || stop "$radius" FreeRADIUS
	test -z "$top" || rm -rf "$top"
	exit $rc
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# send FILE ARGUMENT...: one message by swaks, its transcript in FILE
send() {
	local out=$1
	shift
	timeout 60 swaks --server 127.0.0.1 --helo laptop.customer.example --from alice@customer.example --to bob@far.example \
		--h-Subject 'a message from the road' --body 'Hello Bob, I am on the road, and mail works.' "$@" > "$out" 2>&1
}

# ---- 1

step "1. What is needed"
if test -z "${MAILSTILE:-}"; then
	explain "Packages are installed where they are missing, and mailstile is built."
	test/install-deps.sh build demo || fail "packages are missing"
	make -s all || fail "the build failed"
	MAILSTILE=$PWD/mailstile
fi
for tool in freeradius swaks python3 openssl setpriv timeout; do
	command -v $tool > /dev/null || fail "$tool is not installed; try: test/install-deps.sh build demo"
done
test -x "$MAILSTILE" || fail "no program $MAILSTILE"
top=$(mktemp -d "${TMPDIR:-/tmp}/mailstile-demo.XXXXXX") || fail "no temporary directory"
mkdir -p "$top/raddb" "$top/home/control" || fail "cannot write to $top"
install -m 755 "$MAILSTILE" "$top/mailstile" || fail "cannot copy $MAILSTILE"
if test "$(id -u)" = 0; then
	as=(setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all)
	who="user nobody, since root is not needed for a demonstration"
else
	who="user $(id -un)"
fi
explain "Program:    $("$top/mailstile" version), $(stat -c %s "$top/mailstile") octets, static" \
	"Directory:  $top" "Runs as:    $who"

# ---- 2

step "2. A RADIUS server, which knows who is a customer"
explain "FreeRADIUS, on a port of its own, with a secret made for this run. It signs its replies." \
	"Customers: $user."
read -r radius_port submission_port submissions_port hop_port <<< "$(ports 4)"
secret=$(random_word)
password=$(random_word)
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
	files {
		usersfile = \${raddbdir}/users
	}
}
client mailstile {
	ipaddr = 127.0.0.1
	secret = $secret
	require_message_authenticator = yes
}
server demo {
	listen {
		type = auth
		ipaddr = 127.0.0.1
		port = $radius_port
	}
	authorize {
		files
		pap
	}
	authenticate {
		Auth-Type PAP {
			pap
		}
	}
	post-auth {
		update reply {
			Message-Authenticator := 0x00
		}
		Post-Auth-Type REJECT {
			update reply {
				Message-Authenticator := 0x00
			}
		}
	}
}
END
printf '%s\tCleartext-Password := "%s"\n' "$user" "$password" > "$top/raddb/users"
umask 077
cat > "$top/home/control/radius.conf" << END
# server[:port] secret [timeout [retries]]
127.0.0.1:$radius_port $secret 2 2
END
umask 022
test ${#as[@]} = 0 || chown -R 65534:65534 "$top"
"${as[@]}" freeradius -f -l stdout -d "$top/raddb" > "$top/radius.log" 2>&1 &
radius=$!
radius_ready() {
	kill -0 "$radius" 2> /dev/null || fail "FreeRADIUS has ended"
	grep -q 'Ready to process requests' "$top/radius.log"
}
try "FreeRADIUS" radius_ready
explain "It listens on 127.0.0.1:$radius_port (UDP)."

# ---- 3

step "3. The files mailstile is set up with"
echo mail.demo.example > "$top/home/control/me"
echo off > "$top/home/control/relay"
cat > "$top/home/control/listen" << END
submission 127.0.0.1:$submission_port
submissions 127.0.0.1:$submissions_port
END
test ${#as[@]} = 0 || chown -R 65534:65534 "$top/home/control"
explain "Four files in the control directory; the secret in radius.conf is not shown. Mail is to stay in the queue for now."
(cd "$top/home/control" && grep . me listen relay radius.conf) | sed "s/$secret/(secret)/" | show

step "4. An empty queue, as qmail has it"
explain "\$ mailstile mkqueue"
"${as[@]}" "$top/mailstile" mkqueue -H "$top/home" 2>&1 | show || fail "mkqueue"

step "5. Is the set-up right?"
explain "\$ mailstile check"
"${as[@]}" "$top/mailstile" check -H "$top/home" 2>&1 | show || fail "check has found errors"

step "6. Does the RADIUS server answer, and what?"
explain "\$ mailstile check radius $user        (the password comes from standard input)"
"${as[@]}" "$top/mailstile" check -H "$top/home" radius $user <<< "$password" 2>&1 | show || fail "the login was not accepted"
explain "The same with a wrong password:"
"${as[@]}" "$top/mailstile" check -H "$top/home" radius $user <<< "not-$password" 2>&1 | show
test "${PIPESTATUS[0]}" = 1 || fail "the wrong password was not refused"

# ---- 7

step "7. The server starts"
explain "\$ mailstile serve        (in the foreground; its log goes to a file here)"
"${as[@]}" "$top/mailstile" serve -H "$top/home" > "$top/server.log" 2>&1 &
server=$!
server_ready() {
	kill -0 "$server" 2> /dev/null || fail "mailstile has ended"
	grep -qs '^ev=start ' "$top/server.log"
}
try "mailstile" server_ready
if grep -q '^ev=listen .* error=' "$top/server.log"; then
	fail "a listener could not be opened"
fi
show < "$top/server.log"
explain "It has made itself a key and a certificate, too."

step "8. A customer on the road sends a message"
explain "STARTTLS, login, message. <- and -> are lines in the clear, <~ and ~> lines under TLS."
send "$top/good" --port "$submission_port" -tls --auth PLAIN --auth-user $user --auth-password "$password"
rc=$?
transcript "$top/good" | sed 's/\(> AUTH PLAIN \).*/\1(name and password)/' | show
id=$(sed -n 's/^<~  250 2\.0\.0 ok [0-9]* qp [0-9]* id \([0-9]*\).*/\1/p' "$top/good")
if test $rc != 0 || test -z "$id"; then
	fail "the message was not accepted"
fi
explain "Accepted: it is on the disk now, as message $id of the queue."

step "9. Somebody tries to send without a login"
send "$top/nologin" --port "$submission_port" -tls
transcript "$top/nologin" | show
grep -q '^<~\* 530 5.7.0 ' "$top/nologin" || fail "expected 530 5.7.0"
explain "Refused, as it should be."

step "10. Somebody guesses a password"
explain "On the other port this time, where TLS comes first."
send "$top/wrong" --port "$submissions_port" -tlsc --auth PLAIN --auth-user $user --auth-password "guess-me"
transcript "$top/wrong" | sed 's/\(> AUTH PLAIN \).*/\1(name and guess)/' | show
grep -q '^<~\* 535 5.7.8 ' "$top/wrong" || fail "expected 535 5.7.8"
explain "Refused, after a second. The next guess from this address would have to wait longer."

# ---- 11

step "11. What is in the queue"
messages=("$top"/home/queue/mess/*/*)
envelopes=("$top"/home/queue/todo/*)
if test "${messages[*]##*/} ${envelopes[*]##*/}" != "$id $id"; then
	fail "expected one message, $id, but the queue holds: ${messages[*]} ${envelopes[*]}"
fi
explain "The envelope, todo/$id: user id, process id, sender (F), recipient (T)"
tr '\0' '\n' < "${envelopes[0]}" | show
explain "" "The message, ${messages[0]#"$top/home/queue/"}"
show < "${messages[0]}"
envelope=$(tr '\0' '\n' < "${envelopes[0]}")
expect "$envelope" '^Falice@customer\.example$'
expect "$envelope" '^Tbob@far\.example$'
expect "$(cat "${messages[0]}")" ' with ESMTPSA \(TLSv1\.2\) '
expect "$(cat "${messages[0]}")" '^Hello Bob, '
explain "A qmail-send would take it from here. There is none, so mailstile is to deliver it."

# ---- 12

step "12. A next hop, and the way there"
explain "Another mail server (aiosmtpd), with a certificate from an authority made for this run."
openssl_quiet() {
	openssl "$@" > /dev/null 2>&1 || fail "openssl $1"
}
openssl_quiet req -x509 -nodes -days 2 -subj "/CN=Demo CA" -newkey ec -pkeyopt ec_paramgen_curve:P-256 -addext keyUsage=critical,keyCertSign \
	-keyout "$top/ca.key" -out "$top/ca.pem"
openssl_quiet req -nodes -subj /CN=localhost -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout "$top/hop.key" -out "$top/hop.csr"
echo subjectAltName=DNS:localhost > "$top/hop.ext"
openssl_quiet x509 -req -in "$top/hop.csr" -CA "$top/ca.pem" -CAkey "$top/ca.key" -CAcreateserial -days 2 -extfile "$top/hop.ext" -out "$top/hop.pem"
test ${#as[@]} = 0 || chown 65534:65534 "$top/hop.key"
PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 "${as[@]}" /usr/bin/python3 -m aiosmtpd -n -l "127.0.0.1:$hop_port" --tlscert "$top/hop.pem" \
	--tlskey "$top/hop.key" -c aiosmtpd.handlers.Debugging stdout > "$top/hop.log" 2>&1 &
hop=$!
hop_ready() {
	kill -0 "$hop" 2> /dev/null || fail "aiosmtpd has ended"
	(: < "/dev/tcp/127.0.0.1/$hop_port") 2> /dev/null
}
try "aiosmtpd" hop_ready
: > "$top/home/control/locals"
echo ":localhost:$hop_port" > "$top/home/control/smtproutes"
echo "localhost:verify" > "$top/home/control/smtptls"
cp "$top/ca.pem" "$top/home/control/cacerts.pem"
echo on > "$top/home/control/relay"
explain "All mail goes there, and only if its certificate is right:"
(cd "$top/home/control" && grep . relay smtproutes smtptls) | show
explain "\$ mailstile check; kill -HUP (the process whose id is in the pid file)"
"${as[@]}" "$top/mailstile" check -H "$top/home" 2>&1 | show || fail "check has found errors"
kill -HUP "$server"
arrived() {
	grep -q '^Hello Bob, ' "$top/hop.log" && ! ls "$top"/home/queue/mess/*/* > /dev/null 2>&1
}
try "the message at the next hop" arrived
explain "What the next hop has got:"
sed -n '/MESSAGE FOLLOWS/,/END MESSAGE/p' "$top/hop.log" | show
explain "And the queue is empty again."

# ---- 13

step "13. What the server has written into its log"
sed '/^ev=start /,$!d; /^ev=start /d' "$top/server.log" | show
log=$(cat "$top/server.log")
expect "$log" "^ev=auth .* user=$user mech=PLAIN result=accept "
expect "$log" "^ev=accept .* qid=$id "
expect "$log" "^ev=deliver id=$id to=bob@far.example .* result=ok "
expect "$log" '^ev=refuse .* reason=login-required '
expect "$log" "^ev=auth .* user=$user mech=PLAIN result=reject "
if grep -qF -e "$password" -e "$secret" "$top/server.log"; then
	fail "a password or a secret is in the log"
fi

# ---- 14

step "14. The end"
stop "$server" mailstile
rc=$?
server=''
test $rc = 0 || fail "mailstile ended with status $rc"
grep -q '^ev=stop ' "$top/server.log" || fail "mailstile did not say that it stopped"
stop "$hop" aiosmtpd
hop=''
stop "$radius" FreeRADIUS
radius=''
left=$(leftovers)
test -z "$left" || fail "still running: $left"
explain "All servers are stopped, nothing is left running, and $top is removed."
printf '\ndemo: all went as it should, in %d seconds\n' $((SECONDS - began))
