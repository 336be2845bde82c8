# SPDX-License-Identifier: MIT
"""contrib/freeradius: FreeRADIUS and PostgreSQL with the two tables of the qmail-esmtpd set-ups, as they are shipped."""

import re
import time

import pytest

import database
import tools

pytestmark = pytest.mark.release
SUBMISSIONS = {"submissions": "submissions 127.0.0.1:{}"}


@pytest.fixture(scope="module")
def sql_server(work):
    """(Database, SqlRadius): once for all tests."""
    d = database.Database(work)
    d.reset()
    r = database.SqlRadius(work, d)
    yield d, r
    r.stop()
    d.stop()


@pytest.fixture
def db(sql_server):
    sql_server[0].reset(bob=3, carol=0, dave="null")
    return sql_server[0]


@pytest.fixture
def radius(sql_server, db):  # pylint: disable=unused-argument
    return sql_server[1]


def left(radius, user, nas="box1"):
    reply = radius.login(user, nas=nas)
    assert reply["code"] == "Access-Accept"
    return int(reply["Mailstile-Day-Messages"])


# ---- Who is it? ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("user", list(database.PASSWORDS))
def test_right(radius, user):
    reply = radius.login(user)
    assert reply["code"] == "Access-Accept" and reply["Mailstile-Relay"] == "yes"
    assert re.fullmatch("0x[0-9a-f]{32}", reply["Message-Authenticator"])
    assert reply.get("Mailstile-Day-Messages") == {"bob": "3", "carol": "0", "dave": None}.get(user, "50")


@pytest.mark.parametrize("user,password", [("alice", "wonder lan"), ("alice", "wonder land "), ("nobody", "x"), ("alice' or '1'='1", "wonder land"),
                                           ("ALICE", "wonder land"), ("alic%", "wonder land"), ("alice%{User-Password}", "wonder land"), ("alice\\", "wonder land"), ("alice\\' or true --", "wonder land"), ("a" * 253, "x")])
def test_wrong(radius, db, user, password):
    reply = radius.login(user, password)
    assert reply["code"] == "Access-Reject" and set(reply) == {"code", "Message-Authenticator"}
    assert len(db.sql("select 1 from poppass")) == len(database.PASSWORDS)


def test_kinds_of_password(radius, db):
    """crypt(3) of old tables (13 octets) and of today; an empty or broken one lets nobody in, nor does the hash itself."""
    old = tools.run("perl", "-e", 'print crypt("secret", "ab")').text
    for pw, password, code in ((old, "secret", "Accept"), (old, "secre", "Reject"), (old, old, "Reject"), ("", "x", "Reject"), ("secret", "secret", "Reject"),
                               ("*", "*", "Reject"), ("!", "!", "Reject"), (tools.run("openssl", "passwd", "-1", "secret").text.strip(), "secret", "Accept")):
        db.sql("update poppass set pw = %s where name = 'alice'" % database.quote(pw))
        assert radius.login("alice", password)["code"] == "Access-" + code, pw


def test_radtest(radius):
    """The tool an administrator would take first."""
    p = tools.run("radtest", "-d", radius.dir, "bob", "bob-pw", "127.0.0.1:%d" % radius.auth, "0", database.SECRET,
                  check=False)
    assert "Access-Accept" in p.text and "Mailstile-Day-Messages = 3" in p.text, p.text


def test_without_a_number(radius, db):
    """Who could not be counted is no customer."""
    db.sql("update poppass set id = null where name = 'alice'")
    assert radius.login("alice")["code"] == "Access-Reject"


def test_may_not_relay(radius, db):
    db.sql("insert into mailstile_limits (id, relay) select id, false from poppass where name = 'alice'")
    reply = radius.login("alice")
    assert reply["code"] == "Access-Accept" and reply["Mailstile-Relay"] == "no" and "Mailstile-Day-Messages" not in reply


def test_all_limits(radius, db):
    """Each as the dictionary names it; none of them with a wrong password."""
    db.sql("insert into mailstile_limits select id, 10, true, 20, 5, 100000, 2 from poppass where name = 'alice';"
           "insert into mailstile_senders select id, unnest(array['alice@a.example', '@b.example']) from poppass where name = 'alice'")
    reply = radius.login("alice")
    assert {k[10:]: v for k, v in reply.items() if k.startswith("Mailstile-")} == {
        "Relay": "yes", "Day-Messages": "10", "Day-Recipients": "20", "Rate": "5", "Size": "100000", "Sessions": "2", "From": ["@b.example", "alice@a.example"]}
    assert set(radius.login("alice", "no")) == {"code", "Message-Authenticator"}


def test_box(make_server, radius):
    """A real mailstile that asks it."""
    server = make_server(radius=radius.conf, listen=SUBMISSIONS)
    for user in ("alice", "carol", "jürgen", "o'neil"):
        with server.session("submissions", login=None) as c:
            c.auth_plain(user, database.PASSWORDS[user])
    with server.session("submissions", login=None) as c:
        c.auth_plain("alice", "wonder lan", 535)


def test_box_limits(make_server, radius, db):
    """And keeps to what it is told."""
    db.sql("update mailstile_limits set relay = false where id = (select id from poppass where name = 'dave');"
           "insert into mailstile_senders select id, '@a.example' from poppass where name = 'alice'")
    server = make_server(radius=radius.conf, listen=SUBMISSIONS)
    for user, sender, can, then in (("bob", "me@a.example", 3, 450), ("carol", "me@a.example", 0, 450), ("dave", "me@a.example", 0, 550),
                                    ("alice", "me@a.example", 4, 250), ("alice", "me@b.example", 0, 550)):
        with server.session("submissions", login=None) as c:
            c.auth_plain(user, database.PASSWORDS[user])
            for _ in range(can):
                c.mail(sender=sender)
            c.cmd("MAIL FROM:<%s>" % sender, then)
    server.take()


# ---- How much? ----------------------------------------------------------------------------------------------------------

def test_limit_of_all_boxes(radius, db):
    """What is sent through one box is not left on the other. At the limit the login is right and nothing is left: nobody is told that his password is wrong."""
    assert radius.account("bob", "Start", "s1") == {"code": "Accounting-Response", "Mailstile-Day-Messages": "3"}
    assert db.count("bob") is None
    assert radius.account("bob", "Interim-Update", "s1", 2) == {"code": "Accounting-Response", "Mailstile-Day-Messages": "1"}
    assert db.count("bob") == (0, 2, 2) and left(radius, "bob", "box2") == 1
    assert radius.account("bob", "Stop", "s1", 2)
    assert radius.account("bob", "Stop", "s2", 1, nas="box2")
    assert db.count("bob") == (0, 3, 3) and left(radius, "bob") == left(radius, "bob", "box2") == 0
    assert radius.account("bob", "Stop", "s3", 4, nas="box2")  # more than was left: two sessions at once
    assert db.count("bob") == (0, 7, 7) and left(radius, "bob") == 0
    assert left(radius, "alice") == 50


def test_same_session_id_on_two_boxes(radius, db):
    radius.account("alice", "Stop", "same", 1)
    radius.account("alice", "Stop", "same", 1, nas="box2")
    assert db.count("alice") == (0, 2, 2)


def test_packets_that_come_again(radius, db):
    """Counts are of the session so far: an Interim, a Stop, the same Stop again (with another delay, so another packet), a late Interim."""
    for status, messages, delay in (("Interim-Update", 1, None), ("Interim-Update", 4, None), ("Interim-Update", 4, 2), ("Stop", 5, None), ("Stop", 5, 3), ("Stop", 5, 60),
                                    ("Interim-Update", 4, 90), ("Start", None, 99)):
        assert radius.account("alice", status, "s1", messages, delay=delay)["code"] == "Accounting-Response"
    assert db.count("alice") == (0, 5, 5)
    assert db.sql("select messages, stopped from mailstile_sessions") == [["5", "t"]]


def test_a_stop_alone(radius, db):
    """Everything before it was lost."""
    radius.account("alice", "Stop", "s1", 5, recipients=12, rejected=2)
    assert db.count("alice") == (0, 5, 5)
    assert db.sql("select nas, session, messages, recipients, rejected, stopped from mailstile_sessions") == [["box1", "s1", "5", "12", "2", "t"]]


def test_many_at_once(radius, db):
    """Each message counts once, whatever comes at the same time: four sessions, each packet thrice."""
    cases = {(s, n, k): lambda s=s, n=n, k=k: radius.account("alice", "Interim-Update", "s%d" % s, n, delay=k, tries=3)
             for s in range(4) for n in (1, 2, 3) for k in range(3)}
    crowd = tools.Crowd(cases)
    assert all(crowd[c]["code"] == "Accounting-Response" for c in cases)
    assert db.count("alice") == (0, 12, 12)


def test_a_new_day(radius, db):
    db.sql("insert into sendcounts select id, current_date - 1, 3, 30 from poppass where name = 'bob'")
    assert left(radius, "bob") == 3
    radius.account("bob", "Stop", "s1", 1)
    assert db.count("bob") == (0, 1, 31) and left(radius, "bob") == 2


def test_a_session_across_midnight(radius, db):
    """What was counted yesterday is not counted again today."""
    radius.account("bob", "Interim-Update", "s1", 2)
    db.sql("update sendcounts set last_send = last_send - 1")
    radius.account("bob", "Stop", "s1", 3)
    assert db.count("bob") == (0, 1, 3) and left(radius, "bob") == 2


def test_a_late_packet_of_yesterday(radius, db):
    """The box kept it while the network was down: no message of today."""
    radius.account("bob", "Stop", "s1", 1)
    radius.account("bob", "Stop", "s2", 2, delay=2 * 86400)
    assert db.count("bob") == (0, 1, 3) and left(radius, "bob") == 2
    db.sql("truncate sendcounts, mailstile_sessions")
    radius.account("bob", "Stop", "s2", 2, delay=86400)
    assert db.count("bob") == (1, 2, 2) and left(radius, "bob") == 3


def test_rows_of_old_programs(radius, db):
    """They may hold no values."""
    db.sql("insert into sendcounts select id, null, null, null from poppass where name = 'bob'")
    assert left(radius, "bob") == 3
    radius.account("bob", "Stop", "s1", 1)
    assert db.count("bob") == (0, 1, 1)


def test_recipients(radius, db):
    """Counted in the same way, in a table of their own."""
    db.sql("insert into mailstile_limits (id, day_recipients) select id, 20 from poppass where name = 'alice'")
    for status, rcpts, delay in (("Interim-Update", 5, None), ("Stop", 7, None), ("Stop", 7, 1), ("Interim-Update", 5, 2)):
        radius.account("alice", status, "s1", 1, recipients=rcpts, delay=delay)
    radius.account("alice", "Stop", "s2", 1, recipients=4, delay=2 * 86400)
    assert radius.login("alice")["Mailstile-Day-Recipients"] == "13"
    db.sql("update mailstile_recipients set day = day - 1")
    assert radius.login("alice")["Mailstile-Day-Recipients"] == "20"
    radius.account("alice", "Stop", "s3", 30, recipients=30)
    assert radius.login("alice")["Mailstile-Day-Recipients"] == "0"


def test_absurd_numbers(radius, db):
    """The count stops at what its column holds: a packet that can never be counted would come for ever."""
    for session in ("s1", "s2"):
        assert radius.account("bob", "Stop", session, 4294967295, delay=4294967295)
        assert radius.account("bob", "Stop", session + "x", 4294967295)
    assert db.count("bob")[1:] == (2147483647, 2147483647) and left(radius, "bob") == 0


def test_nobody_to_count_for(radius, db):
    """Acknowledged, or the box would repeat it for ever."""
    assert radius.account("nobody", "Stop", "s1", 3)
    assert radius.account("o'neil", "Stop", "s'1", 3)["Mailstile-Day-Messages"] == "47"
    assert radius.radclient("acct", {"Acct-Status-Type": "Accounting-On", "NAS-Identifier": "box1"})
    assert db.sql("select count(*) from mailstile_sessions") == [["1"]] and db.count("o'neil") == (0, 3, 3)


# ---- The database -------------------------------------------------------------------------------------------------------

def test_database_down(make_server, radius, db):
    """
    No answer: neither a yes, nor a no that would tell customers that their password is wrong. Accounting is not acknowledged, so that it comes
    again. When it is back all goes on.
    """
    assert left(radius, "alice") == 50
    server = make_server(radius=radius.conf.strip() + " 4 0\n", listen=SUBMISSIONS)

    def customer():
        with server.session("submissions", login=None) as c:
            return c.auth_plain("alice", "wonder land", 454)
    db.stop()
    try:
        crowd = tools.Crowd({"customer": customer, "right": lambda: radius.login("alice", timeout=4), "wrong": lambda: radius.login("alice", "no", timeout=4),
                             "stop": lambda: radius.account("alice", "Stop", "s1", 5, timeout=4)})
        assert crowd["right"] is None and crowd["wrong"] is None and crowd["stop"] is None
        assert crowd["customer"].enhanced == "4.7.0"
    finally:
        db.start()
    tools.poll(lambda: radius.login("alice", timeout=2), "an answer", every=0.5)
    assert radius.account("alice", "Stop", "s1", 5, tries=3)
    assert db.count("alice") == (0, 5, 5) and left(radius, "alice") == 45
    with server.session("submissions", login=None) as c:
        c.auth_plain("alice", "wonder land")


@pytest.mark.parametrize("pause", [0, 0.05])
def test_two_boxes_at_once(make_server, radius, db, pause):
    """
    Four open sessions of one customer, two on each of two boxes, each as fast as it can (or nearly): the limit is that of all together. Beyond it
    goes at most what was under way, for each session one message; each box has kept account of what it took.
    """
    boxes = [make_server(radius=radius.box, listen=SUBMISSIONS) for _ in range(2)]

    def customer(box):
        taken = 0
        with box.session("submissions") as c:
            for _ in range(60):
                for line, code in (("MAIL FROM:<me@client.example>", 250), ("RCPT TO:<you@far.example>", 250), ("DATA", 354), ("Subject: x\r\n\r\nx\r\n.", 250)):
                    said = c.cmd(line, None)
                    if said.code != code:
                        assert said.raw[:9] == b"450 4.7.1", said.raw
                        return taken
                taken += 1
                time.sleep(pause)
        return taken
    crowd = tools.Crowd({n: lambda n=n: customer(boxes[n % 2]) for n in range(4)})
    taken = [crowd[n] for n in range(4)]
    assert 50 <= sum(taken) <= 50 + 4, taken
    tools.poll(lambda: db.count("alice") == (0, sum(taken), sum(taken)), "the database to have heard of all of them: %r" % (taken,))
    for box in boxes:
        with box.session("submissions") as c:
            assert c.cmd("MAIL FROM:<me@client.example>", None).raw[:9] == b"450 4.7.1"
    db.sql("update mailstile_limits set day_messages = 1000 where id = 0")
    try:
        with boxes[0].session("submissions") as c:
            c.mail()
    finally:
        db.sql("update mailstile_limits set day_messages = 50 where id = 0")


def test_started_without_the_database(sql_server, db, work):
    db.stop()
    try:
        second = database.SqlRadius(work, db, "sqlraddb2")
        assert second.login("alice", timeout=2) is None
    finally:
        db.start()
    try:
        assert tools.poll(lambda: second.login("alice", timeout=2), "an answer", every=0.5)["code"] == "Access-Accept"
    finally:
        second.stop()
    tools.poll(lambda: sql_server[1].login("alice", timeout=2), "the other one", every=0.5)


def test_rights(db):
    """FreeRADIUS's role may call the three functions, and see no table."""
    for table in ("poppass", "sendcounts", "mailstile_limits", "mailstile_sessions", "mailstile_senders", "mailstile_recipients"):
        assert "permission denied" in db.sql("select * from " + table, user="freerad", check=False).text
    assert len(db.sql("select * from mailstile_check('alice')", user="freerad")) == 1
    assert "Mailstile-Relay" in str(db.sql("select * from mailstile_reply('alice')", user="freerad"))


def test_schema_twice(db):
    """Again, over tables that are in use and have the article's own columns."""
    db.sql("update mailstile_limits set day_messages = 7 where id = 0")
    before = db.sql("select * from poppass order by id")
    db.schema()
    assert db.sql("select * from poppass order by id") == before and db.sql("select day_messages from mailstile_limits where id = 0") == [["7"]]
    db.sql("update mailstile_limits set day_messages = 50 where id = 0")
