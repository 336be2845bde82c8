-- SPDX-License-Identifier: MIT
-- PostgreSQL: who may send, how much, and who has sent what. Safe to run again; tables that are there stay as they are.
--
-- poppass and sendcounts are those of the qmail-esmtpd set-ups, and go on to mean the same. FreeRADIUS (role freerad) may call three functions
-- and read nothing itself.
\set ON_ERROR_STOP on
begin;

create table if not exists poppass (
	id		int4,			-- the customer's number, as in sendcounts
	name		varchar(20) not null,	-- what he logs in with
	pw		varchar(20) not null,	-- made by crypt(3)
	sysuser		varchar(20) not null,
	hostname	varchar(40) not null,
	ip		varchar(20) not null,
	dir		varchar(80) not null
);
-- Room for hashes that are not from 1979, and for names with a domain. Two customers of one name would be one too many.
alter table poppass alter name type varchar(253), alter pw type varchar(128);
create unique index if not exists poppass_name on poppass (name);

create table if not exists sendcounts (
	id		int4 not null primary key,
	last_send	date,			-- the day that count is about
	count		int4,			-- messages on that day
	total_count	int4			-- messages ever
);

-- What a customer may. Number 0 is for all who have no line of their own. Where a number is missing that limit is not set here.
create table if not exists mailstile_limits (
	id		int4 primary key,
	day_messages	int4 check (day_messages >= 0),		-- a day
	relay		boolean not null default true,		-- at all?
	day_recipients	int4 check (day_recipients >= 0),	-- a day
	rate		int4 check (rate >= 0),			-- messages a minute
	size		int4 check (size >= 0),			-- octets of a message
	sessions	int4 check (sessions >= 0)		-- at once
);
insert into mailstile_limits (id, day_messages) values (0, 50) on conflict do nothing;

-- Senders a customer may use; with no line, any that the box allows.
create table if not exists mailstile_senders (
	id		int4 not null,
	sender		varchar(253) not null,
	primary key (id, sender)
);

-- Recipients of a day, for which sendcounts has no room.
create table if not exists mailstile_recipients (
	id		int4 primary key,
	day		date not null,
	count		int8 not null
);

-- Sessions that accounting packets were about, so that each message counts once however often a packet comes. Rows may be deleted when no
-- box can have a packet about them any more: delete from mailstile_sessions where seen < now() - interval '30 days';
create table if not exists mailstile_sessions (
	nas		text not null,
	session		text not null,
	id		int4 not null,
	messages	int8 not null default 0,	-- counted so far
	recipients	int8 not null default 0,
	rejected	int8 not null default 0,
	stopped		boolean not null default false,
	seen		timestamptz not null default now(),
	primary key (nas, session)
);
create index if not exists mailstile_sessions_seen on mailstile_sessions (seen);

-- The password, in rows as FreeRADIUS wants them. A customer without a number could not be counted, and so is none.
create or replace function mailstile_check(who text)
returns table (id int4, username text, attribute text, value text, op text)
language sql stable security definer set search_path = public, pg_temp as $$
	select p.id, p.name::text, 'Crypt-Password', p.pw::text, ':=' from poppass p where p.name = who and p.id is not null
$$;

-- What is left of the day, and what else he may.
create or replace function mailstile_reply(who text)
returns table (id int4, username text, attribute text, value text, op text)
language sql stable security definer set search_path = public, pg_temp as $$
	with customer as (
		select p.id, p.name::text, l.relay, l.rate, l.size, l.sessions,
			l.day_messages - case when c.last_send >= current_date then coalesce(c.count, 0) else 0 end as messages,
			l.day_recipients - case when r.day >= current_date then r.count else 0 end as recipients
		from poppass p
		left join sendcounts c on c.id = p.id
		left join mailstile_recipients r on r.id = p.id
		left join lateral (
			select * from mailstile_limits m where m.id in (p.id, 0) order by m.id = 0 limit 1
		) l on true
		where p.name = who and p.id is not null
	)
	select c.id, c.name, a.attribute, a.value, ':=' from customer c, lateral (values
		('Mailstile-Relay', case when relay then 'yes' else 'no' end),
		('Mailstile-Day-Messages', greatest(messages, 0)::text),
		('Mailstile-Day-Recipients', greatest(recipients, 0)::text),
		('Mailstile-Rate', rate::text),
		('Mailstile-Size', size::text),
		('Mailstile-Sessions', sessions::text)) a (attribute, value)
	where a.value is not null and (messages is not null or a.attribute <> 'Mailstile-Day-Messages')
		and (recipients is not null or a.attribute <> 'Mailstile-Day-Recipients')
	union all
	select c.id, c.name, 'Mailstile-From', s.sender, '+=' from customer c join mailstile_senders s on s.id = c.id
$$;

-- An accounting packet: numbers are of the session so far. Counts what is new since the last packet of this session; a packet that comes
-- again, or late, has nothing new. `delay`: seconds the packet has waited on the box, for messages of yesterday. Returns what it counted.
create or replace function mailstile_account(who text, box text, sid text, is_stop boolean, delay int8, m int8, r int8, j int8)
returns int8
language plpgsql security definer set search_path = public, pg_temp as $$
declare
	customer int4;
	s mailstile_sessions;
	fresh int8;
	fresh_to int8;
	day date := (now() - least(delay, 2592000) * interval '1 second')::date;
	most constant int8 := 2147483647;
begin
	select p.id into customer from poppass p where p.name = who and p.id is not null;
	if not found then
		return 0;	-- gone since; the box must not repeat this for ever
	end if;
	insert into mailstile_sessions (nas, session, id) values (box, sid, customer) on conflict do nothing;
	-- The row's lock: packets about one session take their turn.
	select * into s from mailstile_sessions where nas = box and session = sid for update;
	fresh := greatest(m - s.messages, 0);
	fresh_to := greatest(r - s.recipients, 0);
	update mailstile_sessions set messages = greatest(messages, m), recipients = greatest(recipients, r),
		rejected = greatest(rejected, j), stopped = stopped or is_stop, seen = now()
		where nas = box and session = sid;
	if fresh > 0 then
		insert into sendcounts as c (id, last_send, count, total_count) values (s.id, day, least(fresh, most), least(fresh, most))
		on conflict (id) do update set
			count = case
				when c.last_send > day then c.count
				when c.last_send = day then least(coalesce(c.count, 0) + fresh, most)
				else least(fresh, most) end,
			last_send = greatest(c.last_send, day),
			total_count = least(coalesce(c.total_count, 0) + fresh, most);
	end if;
	if fresh_to > 0 then
		insert into mailstile_recipients as c values (s.id, day, fresh_to)
		on conflict (id) do update set
			count = case when c.day > excluded.day then c.count when c.day = excluded.day then c.count + fresh_to else fresh_to end,
			day = greatest(c.day, excluded.day);
	end if;
	return fresh;
end
$$;

revoke all on function mailstile_check(text), mailstile_reply(text),
	mailstile_account(text, text, text, boolean, int8, int8, int8, int8) from public;
grant execute on function mailstile_check(text), mailstile_reply(text),
	mailstile_account(text, text, text, boolean, int8, int8, int8, int8) to freerad;

commit;
