# SPDX-License-Identifier: MIT
"""
board/openwrt and board/buildroot, without their trees: the scripts run in BusyBox's shell with stand-ins for OpenWrt's shell functions, which are
written from their documentation; the make parts are read by make with stand-ins for the macros around them.
"""

import os
import re
import subprocess

import pytest

import harness
import tools

BUSYBOX = "/bin/busybox"
OPENWRT = os.path.join(tools.TREE, "board/openwrt")
BUILDROOT = os.path.join(tools.TREE, "board/buildroot")

# /lib/functions.sh: the functions that read a configuration. Its lines are shell words already.
FUNCTIONS = r"""
config_load() {
	for v in $all; do unset "$v"; done
	all= sections= number=0
	. "$IPKG_INSTROOT/etc/config/$1"
}
put() { eval "$1=\$2"; all="$all $1"; }
config() { number=$((number + 1)); section=${2:-cfg$number}; sections="$sections $section"; put "t_$section" "$1"; }
option() { put "o_${section}_$1" "$2"; }
list() { eval "set -- \$1 \"\$2\" \$((\${n_${section}_$1:-0} + 1))"; put "n_${section}_$1" "$3"; put "l_${section}_${1}_$3" "$2"; }
config_get() { eval "$1=\${o_$2_$3:-\$4}"; }
config_get_bool() {
	config_get "$@"
	eval "case \$$1 in 1 | on | true | yes | enabled) $1=1 ;; 0 | off | false | no | disabled) $1=0 ;; *) $1=\$4 ;; esac"
}
config_foreach() {
	local section type
	for section in $sections; do
		eval "type=\$t_$section"
		test "$type" != "$2" || "$1" "$section"
	done
}
config_list_foreach() {
	local section=$1 option=$2 function=$3 c=1 len val
	shift 3
	eval "len=\${n_${section}_$option:-0}"
	while test "$c" -le "$len"; do
		eval "val=\$l_${section}_${option}_$c"
		"$function" "$val" "$@"
		c=$((c + 1))
	done
}
"""

# /etc/rc.common with procd: one instance, started when its description is whole.
RC = r"""
. "$IPKG_INSTROOT/lib/functions.sh"
pidfile=$IPKG_INSTROOT/pid
procd_open_instance() { command=; }
procd_set_param() { echo "$*" >> "$IPKG_INSTROOT/params"; test "$1" != command || { shift; command=$*; }; }
procd_close_instance() { $command < /dev/null > "$IPKG_INSTROOT/log" 2>&1 & echo $! > "$pidfile"; }
procd_send_signal() { echo "signal $*" >> "$IPKG_INSTROOT/params"; kill "-$3" "$(cat "$pidfile")"; }
procd_add_reload_trigger() { echo "trigger $*" >> "$IPKG_INSTROOT/params"; }
stop() {
	test ! -e "$pidfile" || kill "$(cat "$pidfile")"
	while test -e "$pidfile" && kill -0 "$(cat "$pidfile")" 2> /dev/null; do usleep 50000; done
	rm -f "$pidfile"
}
start() { start_service; service_triggers; }
reload() { reload_service; }
. "$1"
"$2"
"""

PLAIN = """
config mailstile 'main'
	option enabled '1'
	option hostname 'mail.example.net'
	option home '%(home)s'
"""

FULL = PLAIN + """
	option databytes '20000000'
	option alertto 'postmaster@example.net'
	option timezone '+0100'
	option delaynotice '14400'
	list userlimit ':day=200'
	list relayclient '192.168.1.0/24'
	list relayclient '2001:db8:17::/48'
	list rcpthost 'example.org'
	list badmailfrom '@spam.example'

config radius
	option server '192.0.2.5'
	option secret 'Keit7oow2aeTh0ie#x'
	option acct '1'

config radius 'second'
	option server '2001:db8::5'
	option port '1645'
	option secret 'Oov6ieja"h4$Uch1oo'
	option retries '1'
	option unsigned '1'
	option acct '1646'

config listen
	option profile 'submission'
	option port '587'

config listen
	option profile 'inside'
	option address '2001:db8::1'
	option port '2525'
	option from 'printer@example.net'

config route
	option domain 'partner.example'
	list relay '[2001:db8::25]:2525'
	list relay '192.0.2.9'
	option tls 'encrypt'

config route
	list relay 'smart.example.net:587'
	option user 'isp4711'
	option password 'it'\\''s: $HOME `x`'
"""


class Router:
    """A root directory with what OpenWrt has there, and the files of our package."""

    def __init__(self, scratch, home):
        self.root, self.home = os.path.join(scratch, "root"), home
        for d in ("lib/functions", "etc/config", "etc/init.d", "bin"):
            os.makedirs(os.path.join(self.root, d))
        for p in "sh test cat rm mkdir mv cp cmp chmod sync kill usleep echo printf ls".split():
            os.symlink(BUSYBOX, os.path.join(self.root, "bin", p))
        self.put("lib/functions.sh", FUNCTIONS)
        self.put("etc/rc.common", RC)
        self.put("lib/functions/mailstile.sh", tools.read(os.path.join(OPENWRT, "files/mailstile.sh")).decode())
        os.makedirs(os.path.join(home, "control"), exist_ok=True)

    def put(self, name, text, mode=0o644):
        tools.write(os.path.join(self.root, name), text, mode)

    def uci(self, text):
        self.put("etc/config/mailstile", text % {"home": self.home})

    def env(self):
        return dict(harness.environment(), IPKG_INSTROOT=self.root, PATH=os.path.join(self.root, "bin"))

    def translate(self, function="mailstile_translate", status=0):
        p = tools.run(BUSYBOX, "sh", "-c", ". $IPKG_INSTROOT/lib/functions.sh; . $IPKG_INSTROOT/lib/functions/mailstile.sh; %s '%s'" % (
            function, self.home), check=False, env=self.env())
        assert p.returncode == status, p.text
        return p.text

    def control(self):
        d = os.path.join(self.home, "control")
        return {f: tools.read(os.path.join(d, f)).decode() for f in os.listdir(d) if not f.startswith(".")}


@pytest.fixture
def router(scratch):
    return Router(scratch, os.path.join(scratch, "home"))


def test_translation(router):
    """Each option lands in the control file of its name; what UCI has nothing for stays, and what it no longer has goes."""
    tools.write(os.path.join(router.home, "control/virtualdomains"), "a.example:a\n")
    tools.write(os.path.join(router.home, "control/smtptls"), ":may\n")
    router.uci(FULL)
    router.translate()
    want = {
        "me": "mail.example.net\n", "databytes": "20000000\n", "alertto": "postmaster@example.net\n", "delaynotice": "14400\n",
        "timezone": "+0100\n", "userlimits": ":day=200\n", "relayclients": "192.168.1.0/24\n2001:db8:17::/48\n",
        "rcpthosts": "example.org\n", "badmailfrom": "@spam.example\n",
        "radius.conf": "192.0.2.5 Keit7oow2aeTh0ie#x acct\n[2001:db8::5]:1645 Oov6ieja\"h4$Uch1oo 2 1 unsigned acct=1646\n",
        "listen": "submission 587\ninside [2001:db8::1]:2525 from=printer@example.net\n",
        "smtproutes": "partner.example:[2001:db8::25]:2525 192.0.2.9\n:smart.example.net:587\n",
        "smtptls": "[2001:db8::25]:encrypt\n192.0.2.9:encrypt\n",
        "smtpauth": "smart.example.net:isp4711:it's: $HOME `x`\n",
        "virtualdomains": "a.example:a\n",
    }
    assert router.control() == want
    for name in want:
        mode = os.stat(os.path.join(router.home, "control", name)).st_mode & 0o777
        assert mode == (0o600 if name in ("radius.conf", "smtpauth") else 0o644), name
    # Nothing but what has changed is written: flash wears.
    before = {f: os.stat(os.path.join(router.home, "control", f)).st_ino for f in want}
    router.uci(FULL.replace("20000000", "30000000"))
    router.translate()
    after = {f: os.stat(os.path.join(router.home, "control", f)).st_ino for f in want}
    assert [f for f in want if before[f] != after[f]] == ["databytes"]
    # Back to what was there before the last change, and to nothing but the name.
    router.translate("mailstile_undo")
    assert router.control() == want
    router.uci(PLAIN)
    router.translate()
    assert router.control() == {"me": "mail.example.net\n", "virtualdomains": "a.example:a\n"}
    router.translate("mailstile_undo")
    assert router.control() == want


def test_server_understands(router):
    """What comes out is what the server reads: `mailstile check` has no complaint about a line."""
    router.uci(FULL)
    router.translate()
    found = tools.run(tools.BINARY, "check", "-H", router.home, check=False).text
    for line in found.splitlines():
        assert not re.search(r"control/(listen|radius.conf|smtp\w+|userlimits|relayclients|rcpthosts|timezone|me|databytes|alertto|delaynotice):\d+: error",
                             line) or "authorit" in line, found
    router.uci(FULL.replace("'192.168.1.0/24'", "'192.168.1.1/24'"))
    router.translate()
    assert "control/relayclients:1: error" in tools.run(tools.BINARY, "check", "-H", router.home, check=False).text


@pytest.mark.parametrize("old, new, said", [
    ("'mail.example.net'", "'mail.example.net\nx'", "hostname has more than one line"),
    ("Keit7oow2aeTh0ie#x", "two words", "the secret of 192.0.2.5 has white space"),
    ("Keit7oow2aeTh0ie#x", "", "radius 192.0.2.5 has no secret"),
    ("Keit7oow2aeTh0ie#x", "a\n198.51.100.1 b", "the secret of 192.0.2.5 has more than one line"),
    ("'192.0.2.5'", "''", "a radius section has no server"),
    ("isp4711", "isp:4711", "no colon"),
    ("'example.org'", "'example.org\n.example'", "a line of rcpthosts has more than one line"),
    ("'smart.example.net:587'", "'smart.example.net 192.0.2.1'", "a relay has white space"),
    ("`x`", "x\nother.example:u:p", "the password of isp4711 has more than one line"),
])
def test_value_that_would_make_a_line(router, old, new, said):
    """Refused, and all files stay as they were."""
    router.uci(FULL)
    router.translate()
    before = router.control()
    text = FULL.replace("20000000", "30000000")
    assert text.count(old) == 1
    router.uci(text.replace(old, new))
    out = router.translate(status=1)
    assert said in out and "/etc/config/mailstile" in out
    assert router.control() == before and not os.path.exists(os.path.join(router.home, "control/.uci"))
    assert "Keit7" not in out and "p\n" not in out.split(said)[0]


class Procd:
    """The init script under /etc/rc.common."""

    def __init__(self, server, scratch):
        self.server = server
        self.router = Router(scratch, server.home)
        text = tools.read(os.path.join(OPENWRT, "files/mailstile.init")).decode()
        assert text.startswith("#!/bin/sh /etc/rc.common\n")
        text, n = re.subn(r"^(PROG|SOCKET)=.*$", lambda m: "%s=%s" % (m.group(1), {"PROG": server.binary, "SOCKET": server.ctl}[m.group(1)]),
                          text, flags=re.M)
        assert n == 2
        # The log to a file: there is no syslog here.
        assert text.count("serve -s -H") == 1
        self.router.put("etc/init.d/mailstile", text.replace("serve -s -H", "serve -H"), 0o755)

    def uci(self, more="", port=None, enabled=1):
        self.router.uci(PLAIN.replace("enabled '1'", "enabled '%d'" % enabled) + more + """
config radius
	option server '127.0.0.1'
	option port '9'
	option secret 'Keit7oow2aeTh0ie'

config listen
	option profile 'submissions'
	option address '127.0.0.1'
	option port '%d'
""" % (port or self.server.port["submissions"]))

    def __call__(self, action, status=0):
        root = self.router.root
        argv = self.server.house.argv(["env", "PATH=%s/bin" % root, BUSYBOX, "sh", os.path.join(root, "etc/rc.common"), os.path.join(root, "etc/init.d/mailstile"),
                                       action], self.server.mounts)
        with open(os.path.join(root, "out"), "w+b") as out:
            p = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=60, check=False, cwd="/",
                               env=dict(harness.environment(), IPKG_INSTROOT=root))
            out.seek(0)
            text = out.read().decode("utf-8", "replace")
        assert p.returncode == status, "%s: status %d, %s" % (action, p.returncode, text)
        return text

    def up(self, port="submissions"):
        tools.poll(lambda: self.server.accepts(port), "the server")

    def params(self):
        return tools.read(os.path.join(self.router.root, "params")).decode()


@pytest.fixture
def procd(make_server, scratch):
    p = Procd(make_server(listen={"submissions": harness.LISTEN["submissions"]}, start=False), scratch)
    yield p
    p("stop")
    assert not p.server.accepts("submissions")


def test_openwrt_service(procd):
    """Off until it is said; started with what UCI says; a reload keeps the process, and an error keeps the configuration."""
    procd.uci(enabled=0)
    assert "enabled 0" in procd("start")
    assert not procd.server.accepts("submissions")
    procd.uci()
    procd("start")
    procd.up()
    assert "respawn 3600 10 5" in procd.params() and "trigger mailstile" in procd.params()
    pid = tools.read(os.path.join(procd.router.root, "pid"))

    other = procd.server.port["other"] = tools.free_port()
    good = procd.router.control()
    procd.uci("\tlist relayclient '192.168.1.1/24'\n", port=other)
    for action in ("reload", "check"):
        assert "control/relayclients:1: error" in procd(action, status=1)
        assert "signal" not in procd.params() and procd.router.control() == good

    procd.uci(port=other)
    procd("check")
    assert procd.router.control() == good
    procd("reload")
    assert "signal mailstile * HUP" in procd.params()
    procd.up("other")
    assert not [f for f in os.listdir(procd.server.control) if f.startswith(".uci")]
    assert tools.read(os.path.join(procd.router.root, "pid")) == pid

    procd.uci()
    procd("reload")
    procd.up()
    procd.uci(enabled=0)
    procd("reload")
    assert not procd.server.accepts("submissions")


def test_openwrt_first_start(procd):
    """The queue is made once."""
    tools.rmtree(procd.server.queue)
    procd.uci()
    procd("start")
    procd.up()
    assert os.path.isdir(os.path.join(procd.server.queue, "mess"))
    assert procd.router.control()["localdelivery"] == "bounce\n"


# What is around OpenWrt's Makefile and Buildroot's .mk, so far as ours use it.
RULES = {
    "rules.mk": "INSTALL_DIR:=install -d\nINSTALL_BIN:=install -m 755\nINSTALL_DATA:=install -m 644\nINSTALL_CONF:=install -m 600\nCP:=cp -R\n",
    "package.mk": """
define BuildPackage
build: ; $$(call Build/Compile)
place: ; $$(call Package/$(1)/install,$(OUT))
facts: ; @echo '$$(MAILSTILE_BOARD)'; $$(eval $$(call Package/$(1))) echo '$$(USERID)'; echo '$$(CATEGORY)'
endef
""",
}


def test_openwrt_package(scratch):
    """The Makefile picks a board by the CPU, and installs what the init script wants."""
    for name, text in RULES.items():
        tools.write(os.path.join(scratch, name), text)
    build = os.path.join(scratch, "build")
    os.makedirs(os.path.join(build, "build/malta"))
    tools.write(os.path.join(build, "build/malta/mailstile"), b"x")
    out = os.path.join(scratch, "out")

    def make(target, arch, subtype=""):
        return tools.run("make", "-s", "-C", OPENWRT, target, "TOPDIR=" + scratch, "INCLUDE_DIR=" + scratch, "OUT=" + out, "ARCH=" + arch,
                         "CPU_SUBTYPE=" + subtype, "PKG_BUILD_DIR=" + build, "TARGET_CROSS=", "DL_DIR=" + scratch).text
    for arch, subtype, board in [("mipsel", "", "malta"), ("mips", "", "malta-be"), ("aarch64", "", "aarch64"), ("x86_64", "", "x86_64"),
                                 ("arm", "neon-vfpv4", "armv7"), ("arm", "", "armv5"), ("riscv64", "", "riscv64")]:
        facts = make("facts", arch, subtype).splitlines()
        assert facts[0] == board and os.path.isdir(os.path.join(tools.TREE, "board", board))
    assert facts[2] == "Mail"
    users = {u.split("=")[0]: u.split(":")[1].split("=")[0] for u in facts[1].split()}
    assert users == {"qmaild": "nofiles", "qmailq": "qmail", "qmails": "qmail", "qmailr": "qmail"}
    make("place", "mipsel")
    have = {os.path.relpath(os.path.join(d, f), out): os.stat(os.path.join(d, f)).st_mode & 0o777 for d, _, fs in os.walk(out) for f in fs}
    assert have == {"usr/sbin/mailstile": 0o755, "etc/init.d/mailstile": 0o755, "lib/functions/mailstile.sh": 0o644, "etc/config/mailstile": 0o600}


def test_shipped_configuration(router):
    """/etc/config/mailstile as it comes is off, and its examples are right."""
    text = tools.read(os.path.join(OPENWRT, "files/mailstile.config")).decode()
    assert "option enabled '0'" in text
    text = re.sub(r"^(\t?)#((?:config|\toption|\tlist|option|list)\b)", r"\1\2", text, flags=re.M).replace("'/etc/mailstile'", "'%(home)s'")
    assert "#option" not in text and "#list" not in text
    router.uci(text)
    router.translate()
    assert len(router.control()) == 14
    found = tools.run(tools.BINARY, "check", "-H", router.home, check=False).text
    assert not re.search(r"control/(?!smtptls)[\w.]+:\d+: error", found), found


BUILDROOT_RULES = """
generic-package =
INSTALL := install
include $(BR2_EXTERNAL_MAILSTILE_PATH)/external.mk
MAILSTILE_PKGDIR := $(BR2_EXTERNAL_MAILSTILE_PATH)/package/mailstile
%/.place: ; $(MAILSTILE_INSTALL_TARGET_CMDS)
	$(MAILSTILE_INSTALL_INIT_SYSV)
facts: ; @echo '$(MAILSTILE_BOARD)'; echo '$(abspath $(MAILSTILE_SITE))'
define NEWLINE


endef
users: ; @printf '%s\\n' '$(subst $(NEWLINE),|,$(MAILSTILE_USERS))'
"""


def test_buildroot_package(scratch):
    """The same for Buildroot; the init script is the one that test_init.py runs."""
    rules = os.path.join(scratch, "rules.mk")
    tools.write(rules, BUILDROOT_RULES)
    build, out = os.path.join(scratch, "build"), os.path.join(scratch, "out")
    os.makedirs(os.path.join(build, "build/malta"))
    tools.write(os.path.join(build, "build/malta/mailstile"), b"x")

    def make(target, *words):
        return tools.run("make", "-s", "-f", rules, target, "BR2_EXTERNAL_MAILSTILE_PATH=" + BUILDROOT, "TARGET_DIR=" + out,
                         "TARGET_CROSS=", *words).text
    for option, board in [("BR2_mipsel", "malta"), ("BR2_mips", "malta-be"), ("BR2_aarch64", "aarch64"), ("BR2_x86_64", "x86_64"),
                          ("BR2_RISCV_64", "riscv64"), ("BR2_powerpc", "powerpc"), ("BR2_arm", "armv5")]:
        assert make("facts", option + "=y").splitlines() == [board, tools.TREE]
    assert make("facts", "BR2_arm=y", "BR2_ARM_CPU_HAS_NEON=y").split()[0] == "armv7"
    users = [u.split()[:4:2] for u in make("users").strip().split("|")]
    assert users == [["qmaild", "nofiles"], ["qmailq", "qmail"], ["qmails", "qmail"], ["qmailr", "qmail"]]
    make(build + "/.place", "BR2_mipsel=y")
    script = os.path.join(out, "etc/init.d/S60mailstile")
    assert tools.read(script) == tools.read(os.path.join(tools.TREE, "board/host/mailstile.init")) and os.stat(script).st_mode & 0o111
    words = tools.run(BUSYBOX, "sh", "-c", ". %s/etc/default/mailstile; echo $DAEMON" % out).text
    assert os.access(out + words.strip(), os.X_OK)
