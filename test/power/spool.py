# SPDX-License-Identifier: MIT
"""Holds what is found on a disk after a cut against what the clients were told: nothing acknowledged may be lost, nothing may be half there."""

import io
import re
import tarfile

import harness
import load
import tools

OWNER = harness.USERS["qmailq"]


class Verdict:
    """
    `acked`: how many messages must be there. `lost`: those of them that are not there, or not wholly. `illegal`: what no crash may leave, because the reader of the spool
    would lose mail over it or stumble for ever. `debris`: what sweeps remove, counted by kind. `found`: whole messages.
    """

    def __init__(self):
        self.acked, self.lost, self.illegal, self.debris, self.found = 0, [], [], {}, set()

    def count(self, kind):
        self.debris[kind] = self.debris.get(kind, 0) + 1

    def bad(self, text, *args):
        self.illegal.append(text % args)


class Files:
    """What is in the archive: `data` {path: content}, `info` {path: TarInfo}, `inode` {path: number}."""

    def __init__(self, listing, archive):
        self.data, self.info, self.inode = {}, {}, {}
        for line in listing.splitlines():
            number, path = line.strip().split(" ", 1)
            self.inode[path[2:]] = int(number)
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for t in tar:
                name = t.name[2:]
                if t.isreg():
                    self.data[name], self.info[name] = tar.extractfile(t).read(), t
                elif t.islnk():
                    target = t.linkname[2:] if t.linkname.startswith("./") else t.linkname
                    self.data[name], self.info[name] = self.data[target], self.info[target]
        assert set(self.data) == set(self.inode), "the archive is not what was listed: %r" % (set(self.data) ^ set(self.inode))

    def part(self, directory):
        """What is below `directory`, as if that were all."""
        part = object.__new__(Files)
        part.data, part.info, part.inode = ({p[len(directory) + 1:]: x for p, x in all_of.items() if p.startswith(directory + "/")}
                                            for all_of in (self.data, self.info, self.inode))
        return part

    def below(self, directory):
        return sorted(p for p in self.data if p.startswith(directory + "/"))


def message_in(v, where, data, head, sent, when):
    """The message that `data` is, if it is whole; `head` matches what the server puts before it."""
    m = sent.get(load.number_of(data))
    if m is None:
        v.bad("%s: %d octets, no message of ours: %r", where, len(data), data[:60])
        return None
    body = m.stored()
    if m.begin >= when or not data.endswith(body) or not re.fullmatch(head, data[:len(data) - len(body)]):
        v.bad("%s: message %d is not whole: %d octets instead of %d and a head", where, m.number, len(data), len(body))
        return None
    return m


RECEIVED = rb"Received: from [^\n]*\n  by [^\n]*\n"
QUEUE_HEAD = rb"Received: \(qmail \d+ invoked from network\); [^\n]*\n" + RECEIVED


def check_queue(v, files, sent, when):
    split = len({p.split("/")[1] for p in files.info if p.startswith("mess/")} | {"0", "1", "2"})
    messages = {p.split("/")[2]: p for p in files.below("mess")}
    for path in files.below("todo"):
        n = path.split("/")[1]
        mess = messages.get(n)
        if mess is None:
            v.bad("%s: no message of that number", path)
            continue
        try:
            envelope = tools.parse_envelope(files.data[path])
        except AssertionError as e:
            v.bad("%s: %s", path, str(e)[:100])
            continue
        if mess != "mess/%d/%s" % (int(n) % split, n) or files.inode[mess] != int(n):
            v.bad("%s: is inode %d", mess, files.inode[mess])
        for p in (path, mess):
            if (files.info[p].uid, files.info[p].mode) != (OWNER, 0o644):
                v.bad("%s: owner %d, mode %o", p, files.info[p].uid, files.info[p].mode)
        if "intd/" + n in files.inode and files.inode["intd/" + n] != files.inode[path]:
            v.bad("intd/%s: another file than %s", n, path)
        m = message_in(v, mess, files.data[mess], QUEUE_HEAD, sent, when)
        if m is None:
            continue
        if (envelope.sender.decode(), [r.decode() for r in envelope.rcpts]) != (m.sender, m.rcpts):
            v.bad("%s: envelope of message %d is %r", path, m.number, envelope.raw)
        elif m in v.found:
            v.bad("%s: message %d a second time", path, m.number)
        else:
            v.found.add(m)
    for path in files.below("intd"):
        n = path.split("/")[1]
        if n not in messages:
            v.bad("%s: no message of that number: in the way for ever", path)
        elif "todo/" + n not in files.data:
            v.count("intd")
    for n in messages:
        if "todo/" + n not in files.data:
            v.count("mess")
    for _ in files.below("pid"):
        v.count("pid")


def check_maildir(v, files, sent, when, plain):
    got = {}
    for path in files.below("new"):
        data = files.data[path]
        head = re.match(rb"Return-Path: <([^>\n]*)>\n((?:Delivered-To: [^\n]*\n)+)", data)
        if head is None:
            v.bad("%s: no head: %d octets, %r", path, len(data), data[:60])
            continue
        m = message_in(v, path, data[head.end():], RECEIVED, sent, when)
        if m is None:
            continue
        rcpts = [r.decode() for r in re.findall(rb"Delivered-To: ([^\n]*)\n", head.group(2))]
        rcpts = rcpts if plain else [r.replace("alias-isp-", "", 1) for r in rcpts]
        if head.group(1).decode() != m.sender or not (rcpts == m.rcpts if plain else len(rcpts) == 1 and rcpts[0] in m.rcpts):
            v.bad("%s: envelope of message %d is %r", path, m.number, head.group(0))
        elif set(rcpts) & got.setdefault(m, set()):
            v.bad("%s: message %d a second time", path, m.number)
        got[m] |= set(rcpts)
        if files.info[path].uid != OWNER:
            v.bad("%s: owner %d", path, files.info[path].uid)
    v.found = {m for m, rcpts in got.items() if rcpts == set(m.rcpts)}
    for _ in files.below("tmp"):
        v.count("tmp")


def check(kind, listing, archive, sent, when):
    """`when`: of the cut; what was acknowledged before must be there, what was begun later cannot."""
    v = Verdict()
    files = Files(listing, archive)
    if kind == "queue":
        check_queue(v, files, sent, when)
    else:
        check_maildir(v, files, sent, when, kind == "plain")
    acked = [m for m in sent.values() if m.ack and m.ack < when and not (m.dropped and m.dropped < when)]
    v.acked = len(acked)
    v.lost = [m for m in acked if m not in v.found]
    return v
