# SPDX-License-Identifier: MIT
"""The report of `make bench`: Markdown with budgets, and a plot as SVG."""
import os
import pathlib
import platform
import re
import subprocess
import time

PEERS = ("Postfix", "Postfix+Dovecot", "Exim", "OpenSMTPD")
DURABLE = ("Postfix", "Postfix+Dovecot", "Exim")


def median(values):
    values = sorted(values)
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


# ---- Budgets -----------------------------------------------------------------------------------------------------------

def ratio(row, others, best=max):
    """Median of the rounds' ratios of mailstile to the best of `others`."""
    present = [row[n] for n in others if n in row]
    if "mailstile" not in row or not present:
        return None
    return median([m / best(values) for m, *values in zip(row["mailstile"], *present)])


class Budget:
    """`limit` against the ratio to Postfix or to the best peer, or against mailstile's own value. More is better unless `most`."""

    def __init__(self, limit, against, most=False):
        self.limit, self.against, self.most = limit, against, most

    def text(self):
        sign = "≤" if self.most else "≥"
        return f"{sign} {self.limit:g}" + {"postfix": " × Postfix", "best": " × best", "": ""}[self.against]

    def verdict(self, row):
        """What came out, and whether that is within the budget; None when it was not measured."""
        if "mailstile" not in row:
            return None
        best = min if self.most else max
        if self.against == "":
            value, text = median(row["mailstile"]), None
        else:
            others = ("Postfix",) if self.against == "postfix" else PEERS
            value = ratio(row, others, best)
            if value is None:
                return None
            text = f"{value:.2f} ×"
            durable = ratio(row, DURABLE, best) if self.against == "best" and "OpenSMTPD" in row else None
            if durable is not None and abs(durable - value) > 0.005:
                text += f" ({durable:.2f} × without OpenSMTPD)"
        met = value <= self.limit if self.most else value >= self.limit
        return text or number(value), met


BUDGETS = {
    "messages/s, 8 sessions, 1 a connection": [Budget(1.3, "postfix")],
    "messages/s, 32 sessions, 1 a connection": [Budget(2, "postfix")],
    "CPU us a message, 8 sessions, 1 a connection": [Budget(0.5, "postfix", True), Budget(1, "best", True)],
    "CPU us a message, 8 sessions, 50 a connection": [Budget(0.45, "postfix", True), Budget(1, "best", True)],
    "1 MiB messages/s, 8 sessions": [Budget(1.5, "best")],
    "memory, idle server, user KiB": [Budget(512, "", True)],
    "memory, idle TLS session, user KiB": [Budget(72, "", True)],
    "memory, idle TLS session, kernel KiB": [Budget(140, "", True)],
    "memory, 64 idle TLS sessions and server, KiB": [Budget(14336, "", True)],
    "TLS handshakes/s, full, 8 sessions": [Budget(0.8, "best")],
    "TLS handshakes/s, resumed, 8 sessions": [Budget(1.7, "best")],
    "TLS + login + message/s, 8 sessions": [Budget(1.3, "best")],
    "CPU us a TLS + login + message": [Budget(0.75, "best", True)],
    "binary, stripped, KiB": [Budget(320, "", True)],
}


# ---- The table ---------------------------------------------------------------------------------------------------------

def number(value):
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def cell(values):
    if not values:
        return "–"
    if len(values) == 1 or max(values) - min(values) < 0.05:
        return number(median(values))
    return f"**{number(median(values))}** ({number(min(values))}–{number(max(values))})"


def derive(table, binary):
    """Rows that follow from others."""
    rows = table.rows
    parts = [rows.get(r, {}) for r in ("memory, idle server, user KiB", "memory, idle TLS session, user KiB",
                                       "memory, idle TLS session, kernel KiB")]
    for name in parts[1]:
        rows.setdefault("memory, 64 idle TLS sessions and server, KiB", {})[name] = [
            base + 64 * (user + kernel) for base, user, kernel in zip(*(p[name] for p in parts))]
    rows["binary, stripped, KiB"] = {"mailstile": [binary / 1024]}


GROUPS = [
    ("Accepting messages of 4 KiB", ("messages/s", "CPU us a message", "system calls", "disk flushes"), ()),
    ("Large messages", ("1 MiB",), ()),
    ("Connections and TLS", ("connections/s", "CPU us a connection", "TLS handshakes", "TLS CPU"), ()),
    ("Logins by RADIUS, over TLS", ("logins/s", "CPU us a login", "TLS + login", "CPU us a TLS + login"), ()),
    ("From the client through to the next hop", ("through", "backlog"), ()),
    ("Memory of a full queue", ("queue memory",), ()),
    ("Memory and size", ("memory", "size", "binary"), ()),
]


def result_lines(table, names):
    out = []
    for title, starts, _ in GROUPS:
        rows = [(r, v) for r, v in table.rows.items() if r.startswith(starts)]
        if not rows:
            continue
        present = [n for n in names if any(n in values for _, values in rows)]
        out += [f"### {title}", "", "| | " + " | ".join(present) + " | budget | measured | |",
                "|---|" + "---:|" * len(present) + "---|---|---|"]
        for row, values in rows:
            cells = [cell(values.get(n)) for n in present]
            verdicts = [(b.text(), b.verdict(values)) for b in BUDGETS.get(row, ())]
            verdicts = [(text, v) for text, v in verdicts if v is not None]
            out.append(f"| {row} | " + " | ".join(cells) + " | " + "<br>".join(text for text, _ in verdicts) + " | " +
                       "<br>".join(v[0] for _, v in verdicts) + " | " + "<br>".join("met" if v[1] else "**not met**" for _, v in verdicts) + " |")
        out.append("")
    return out


# ---- The machine and the method ----------------------------------------------------------------------------------------

def command(*argv):
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def machine(described):
    """`described`: the file system."""
    cpu = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text()).group(1)) // 1024
    debian = pathlib.Path("/etc/debian_version")
    return [
        f"CPU: {cpu.group(1) if cpu else platform.machine()}, {os.cpu_count()} cores; memory {memory} MiB",
        f"kernel {platform.release()}, Debian {debian.read_text().strip() if debian.exists() else '(no)'}",
        "queues on " + described,
        f"date: {time.strftime('%Y-%m-%d')}",
    ]


def busy(before, after):
    """What others did, in percent of the machine, before and after the run."""
    return f"used by others before and after: {before:.0f} % and {after:.0f} % of the CPUs" + (
        " (**not quiet: absolute numbers are low**)" if max(before, after) > 10 else "")


METHOD = """\
All servers run at the same time on this machine, on loopback, with their queues on one file system; only one of them has work. Each row is
measured server after server, {rounds} times over, {seconds:g} s a load. The tables say **median** (lowest–highest) of the rounds;
ratios are made within a round, and of them the median is taken. The load generator (`test/bench/load.c`) runs beside the servers and uses
the same {cores} cores. It opens SESSIONS connections at a time, each from a loopback address of its own, and pipelines where
the server offers it. After every load the messages in the queue are counted: as many as were answered 250, or the run fails.

* **CPU** is user and system time of all processes of a server, ended ones included, from a control group each. Work that the kernel does in
  threads of its own (journal, disk) is not in it.
* **System calls and flushes** are counted by strace in a run of their own (fsync, fdatasync, sync, syncfs, msync).
* **Memory** is of a server that was just started. *User* is what would be free if it were not there (USS). *Kernel* is the growth of
  Slab, KernelStack, PageTables, Percpu and socket buffers in the whole machine with 64 sessions open; about 2 KiB of it are the client's socket.
* **TLS** is TLS 1.2 with an ECDSA P-256 certificate; connect, handshake, greeting, QUIT. Resumption is checked.
* **Logins** all go to one FreeRADIUS, each of them anew: mailstile asks it by itself, Exim through PAM, Postfix through saslauthd and PAM, or, in a
  column of its own, through Dovecot and PAM (libpam-radius-auth). A login is a connection with a resumed TLS session, EHLO, AUTH PLAIN and QUIT;
  what TLS costs by itself is in the rows above. FreeRADIUS's own time is not in the CPU column.
* **Queues**: nothing is delivered. Postfix holds what it accepts, Exim only queues, OpenSMTPD's delivery is paused. Files
  are not deleted between rounds but emptied and moved away, since ext4 does not reuse an inode within minutes of its deletion, and
  looking past deleted ones would cost the next server more than all else.
* **Through to the next hop**: every server carries what it takes, one message a connection, on to Postfix's smtp-sink, without TLS; from the first
  message's beginning to the last one's arrival. **Backlog**: 10,000 messages that waited for smtp-sink, from its start and the command to try all
  again to the last arrival; one round. OpenSMTPD is given 100 messages a load: a connection of it takes 20 a second, and it waits for
  seconds before it opens one, also with its delays set to 0; a relay that was down it leaves alone, so it has no figure for a backlog.
  mailstile flushes the marks of deliveries before it goes on, those that end together by one flush, so that a power cut sends nothing twice but what is
  under way just then; the others flush none. With one session the two flushes of a message, of its acceptance and of its mark, come one after the other.
* **The floor** (`test/bench/floor.c`) forks for each connection, judges nothing, and makes message, envelope and
  directories durable with as few flushes as the file system allows.
* **In favour of the others**: Postfix does not look up clients' names, counts no connections, and has no queue manager to wake; Exim writes
  no message logs; Exim's pause of 200 ms after QUIT is avoided, and so are waits for delayed acknowledgements. OpenSMTPD flushes nothing to the
  disk: an accepted message can be lost in a power cut. Debian 12's OpenSMTPD 6.8.0 finishes no TLS handshake with OpenSSL 3, so it has no rows there.
"""


def markdown(table, names, about, rounds, seconds, binary):
    derive(table, binary)
    out = ["# Benchmark", "", "Made by `make bench` as root, in about eight minutes; `make bench BENCH_QUICK=1` takes a minute and a half and measures less. "
           "The head of `test/bench/bench.sh` and `bench.py` say what can be set.", "",
           "![Messages a second, CPU and memory of mailstile and others](benchmark.svg)", "", "## The machine", ""]
    out += ["* " + line for line in about]
    out += ["", "## Results", ""]
    out += result_lines(table, names)
    if table.lost:
        out += ["Connections that were given up because no greeting came within a second: " +
                ", ".join(f"{n} {k}" for n, k in table.lost.items()) + " (in all rows). OpenSMTPD listens with a queue of five: when more "
                "clients come at once, the kernel forgets some.", ""]
    if table.checked:
        out += ["## Is the load generator right?", "",
                "One command at a time, 8 sessions, 1 message a connection, beside Postfix's `smtp-source` with the same load, in turn: " +
                ", ".join(f"{r:.2f} × its rate on {n}" for n, r in table.checked.items()) + ".", ""]
    out += ["## Method", "", METHOD.format(rounds=rounds, seconds=seconds, cores=os.cpu_count())]
    return "\n".join(out)


# ---- The plot ----------------------------------------------------------------------------------------------------------

PANELS = [
    ("messages/s, 32 sessions, 1 a connection", "Messages/s, 32 sessions", "more is better"),
    ("CPU us a message, 8 sessions, 50 a connection", "CPU µs a message, 50 a connection", "less is better"),
    ("TLS + login + message/s, 8 sessions", "TLS + RADIUS login + message, /s", "more is better"),
    ("memory, 64 idle TLS sessions and server, KiB", "Memory for 64 idle TLS sessions, MiB", "less is better"),
]
COLOUR = {"mailstile": "#0b6e4f", "floor": "#b8b8b8"}
OTHER = "#6b7fa3"


def bars(rows, title, hint, names, x, y, scale=1.0):
    """One panel of horizontal bars, 380 wide."""
    present = [n for n in names if rows.get(n)]
    values = {n: median(rows[n]) * scale for n in present}
    top = max(values.values(), default=1) or 1
    out = [f'<text x="{x}" y="{y}" font-weight="bold">{title}</text>',
           f'<text x="{x}" y="{y + 16}" font-size="11" fill="#555">{hint}</text>']
    for i, n in enumerate(present):
        line = y + 30 + i * 24
        width = max(2, 220 * values[n] / top)
        label = n.replace("Postfix+", "+ ") + ("*" if n == "OpenSMTPD" else "")
        weight = ' font-weight="bold"' if n == "mailstile" else ""
        out += [f'<text x="{x + 84}" y="{line + 13}" text-anchor="end"{weight}>{label}</text>',
                f'<rect x="{x + 90}" y="{line}" width="{width:.0f}" height="17" fill="{COLOUR.get(n, OTHER)}"/>',
                f'<text x="{x + 96 + width:.0f}" y="{line + 13}"{weight}>{number(values[n])}</text>']
    return out


def svg(table, names):
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="800" height="372" viewBox="0 0 800 372" font-family="sans-serif" font-size="13" '
           'fill="#111">', '<rect width="800" height="372" fill="#fff"/>']
    for i, (row, title, hint) in enumerate(PANELS):
        scale = 1 / 1024 if row.startswith("memory") else 1.0
        out += bars(table.rows.get(row, {}), title, hint, names, 16 + i % 2 * 396, 28 + i // 2 * 172, scale)
    out += ['<text x="16" y="364" font-size="11" fill="#555">Medians of interleaved rounds on one machine; doc/BENCHMARK.md. '
            '* no flush to the disk, no TLS.</text>', "</svg>", ""]
    return "\n".join(out)
