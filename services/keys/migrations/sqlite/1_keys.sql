-- Times are Unix seconds. Ids of keys are the bits of an unsigned number in a signed one.

-- One row: the number of the last change. A transaction that writes locks it first.
create table head (
  one bigint not null primary key check (one = 1),
  seq bigint not null,
  -- The URL of the database to which the list was moved.
  moved_to text
);
insert into head (one, seq) values (1, 0);

create table team (
  team_id bigint not null primary key,
  name text not null,
  settings text not null,
  created_s bigint not null,
  archived_s bigint
);

create table "user" (
  user_id bigint not null primary key,
  name text not null,
  disabled_s bigint
);
create unique index user_name on "user" (name);

create table member (
  team_id bigint not null references team (team_id),
  user_id bigint not null references "user" (user_id),
  role text not null,
  added_s bigint not null,
  -- When the member first signed in to the page, and last used it, to the minute.
  joined_s bigint,
  seen_s bigint,
  primary key (team_id, user_id)
);

-- One-time codes. Only their hashes are here.
create table code (
  hash blob not null primary key,
  team_id bigint references team (team_id),
  user_id bigint references "user" (user_id),
  role text not null,
  ends_s bigint not null,
  used_s bigint
);

create table session (
  hash blob not null primary key,
  team_id bigint references team (team_id),
  user_id bigint references "user" (user_id),
  role text not null,
  created_s bigint not null,
  seen_s bigint not null,
  ends_s bigint not null,
  -- When the user last proved to be the user, and from where the session began.
  proved_s bigint not null,
  agent text not null,
  address text,
  -- The log's number of the last sign-in of the user that the session has shown.
  shown_seq bigint not null
);
create index session_of_user on session (user_id);

-- Passkeys of members. Each signs in to its team only, because an owner of any team can make a link
-- for any user.
create table passkey (
  credential_id blob not null primary key,
  team_id bigint not null references team (team_id),
  user_id bigint not null references "user" (user_id),
  -- The host that the passkey is bound to, and the random bytes that stand for the member there.
  host text not null,
  handle blob not null,
  name text not null,
  data text not null,
  created_s bigint not null,
  used_s bigint
);
create index passkey_of_member on passkey (team_id, user_id);

-- Challenges that no passkey has answered yet. Only the hashes of their names are here.
create table challenge (
  hash blob not null primary key,
  purpose text not null,
  team_id bigint,
  user_id bigint,
  state text not null,
  ends_s bigint not null
);
create index challenge_ends on challenge (ends_s);

-- Rows are never deleted: a revoked key is its own tombstone.
create table "key" (
  key_id bigint not null primary key,
  team_id bigint not null references team (team_id),
  env text not null,
  name text not null,
  note text not null,
  plan text not null,
  scopes text not null,
  state text not null,
  not_after_s bigint,
  grace_until_s bigint,
  last_characters text,
  imported bigint not null,
  tag blob not null,
  pepper bigint not null,
  previous_tag blob,
  previous_pepper bigint,
  created_s bigint not null,
  created_by text not null,
  rotated_s bigint,
  revoked_s bigint,
  revoked_by text,
  revoked_why text,
  shown_s bigint,
  last_used_s bigint,
  seq bigint not null
);
-- With the name, so that a search reads no rows.
create index key_of_team on "key" (team_id, created_s desc, key_id desc, name);
-- The orders of a list. A key without an end is after all others. The last use has no index,
-- because it changes often.
create index key_of_name on "key" (team_id, lower(name), key_id);
create index key_of_expiry on "key" (team_id, coalesce(not_after_s, 9999999999), key_id);
create index key_of_state on "key" (team_id, state, created_s desc, key_id desc);
create index key_created on "key" (created_s desc, key_id desc, name);
create index key_of_hint on "key" (last_characters, team_id);
create unique index key_seq on "key" (seq);

-- The parts of names, for searches.
create virtual table key_name using fts5 (
  name, content = 'key', content_rowid = 'key_id', tokenize = 'trigram'
);
create trigger key_name_insert after insert on "key" begin
  insert into key_name (rowid, name) values (new.key_id, new.name);
end;
create trigger key_name_update after update of name on "key" when old.name <> new.name begin
  insert into key_name (key_name, rowid, name) values ('delete', old.key_id, old.name);
  insert into key_name (rowid, name) values (new.key_id, new.name);
end;

create table log (
  seq bigint not null primary key,
  at_s bigint not null,
  team_id bigint,
  actor_kind text not null,
  actor text not null,
  address text,
  action text not null,
  key_id bigint,
  detail text not null
);
create index log_of_team on log (team_id, seq desc);
create index log_of_key on log (key_id, seq desc);
create index log_of_actor on log (team_id, actor_kind, actor, seq desc);
create index log_of_time on log (team_id, at_s desc, seq desc);
create index log_of_sign_ins on log (actor_kind, actor, seq desc) where action = 'session.begin';
create index log_of_failures on log (actor_kind, actor, at_s)
  where action in ('session.fail', 'session.fail_proof');

-- The admin tokens, which are keys of the gate admin.gate.
create table token (
  key_id bigint not null primary key,
  team_id bigint references team (team_id),
  role text not null,
  name text not null,
  -- The machine whose gate of tokens has it.
  machine text not null,
  created_s bigint not null,
  created_by text not null,
  revoked_s bigint
);

-- Requests that must not be repeated, for a day.
create table request (
  actor text not null,
  idempotency_key text not null,
  -- The key or token that the first request made or changed, or the number of the team.
  key_id bigint not null,
  at_s bigint not null,
  is_team bigint not null default 0,
  primary key (actor, idempotency_key)
);
create index request_at on request (at_s);

create table gate (
  gate_id bigint not null primary key,
  machine text not null,
  applied_seq bigint not null,
  seen_s bigint not null
);

create table usage (
  width text not null,
  key_id bigint not null,
  start_s bigint not null,
  machine text not null,
  requests bigint not null,
  units bigint not null,
  denied_key bigint not null,
  denied_team bigint not null,
  denied_groups bigint not null,
  forbidden bigint not null,
  old_secret bigint not null,
  revoked bigint not null,
  expired bigint not null,
  suspended bigint not null,
  primary key (width, key_id, start_s, machine)
) without rowid;
create index usage_start on usage (width, start_s);

-- Where people see the service of a gate, for links.
create table service (
  gate_id bigint not null primary key,
  public_url text not null
);

-- Files of counts, and the service that adds the counts of each to the usage.
create table sampler (
  gate_id bigint not null,
  generation bigint not null,
  gate_path text not null,
  seen bigint not null,
  holder bigint not null,
  until_s bigint not null,
  sampled_s bigint not null,
  primary key (gate_id, generation)
);
create index sampler_gate_path on sampler (gate_path);

-- The counts of each key that the usage has. Each counts modulo 2^32, and beyond modulo 2^64.
create table sampled (
  gate_id bigint not null,
  generation bigint not null,
  key_id bigint not null,
  beyond bigint not null,
  requests bigint not null,
  denied_key bigint not null,
  denied_team bigint not null,
  denied_groups bigint not null,
  forbidden bigint not null,
  old_secret bigint not null,
  revoked bigint not null,
  expired bigint not null,
  suspended bigint not null,
  primary key (gate_id, generation, key_id)
) without rowid;
