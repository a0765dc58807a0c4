PRAGMA application_id = 1400138092;
PRAGMA user_version = 5;
CREATE TABLE append (
  place INTEGER PRIMARY KEY,
  stream INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  count INTEGER NOT NULL,
  position INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  mono INTEGER NOT NULL,
  civil INTEGER NOT NULL,
  records BLOB NOT NULL
) STRICT;
CREATE TABLE counter (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE cursor (topic TEXT NOT NULL PRIMARY KEY, position BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE debris (
  key TEXT NOT NULL PRIMARY KEY,
  since INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE fact (
  topic TEXT NOT NULL,
  position INTEGER NOT NULL,
  n INTEGER NOT NULL,
  run BLOB NOT NULL,
  key TEXT NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY (topic, position, n)
) STRICT, WITHOUT ROWID;
CREATE TABLE fork (
  run BLOB NOT NULL PRIMARY KEY,
  database BLOB NOT NULL,
  at INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE hold (name TEXT NOT NULL PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE job (
  id BLOB NOT NULL PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL,
  kind TEXT NOT NULL,
  resource_group BLOB,
  ended INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE TABLE lapse (
  attachment TEXT NOT NULL,
  n INTEGER NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (attachment, n)
) STRICT, WITHOUT ROWID;
CREATE TABLE lease (
  epoch INTEGER PRIMARY KEY,
  process BLOB NOT NULL,
  until INTEGER,
  term INTEGER NOT NULL,
  marked INTEGER NOT NULL
) STRICT;
CREATE TABLE ledger (
  attachment TEXT NOT NULL PRIMARY KEY,
  revision INTEGER NOT NULL,
  considered INTEGER NOT NULL,
  unbegun INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE point (
  id BLOB NOT NULL PRIMARY KEY,
  taken_at INTEGER NOT NULL,
  database BLOB NOT NULL,
  resource_group BLOB,
  policy BLOB,
  job BLOB NOT NULL,
  run BLOB NOT NULL,
  set_token TEXT NOT NULL,
  kind TEXT NOT NULL,
  state TEXT NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE TABLE policy (
  id BLOB NOT NULL,
  version INTEGER NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (id, version)
) STRICT, WITHOUT ROWID;
CREATE TABLE removed_point (id BLOB NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE resource_group (id BLOB NOT NULL PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE schedule (
  id BLOB NOT NULL,
  version INTEGER NOT NULL,
  name TEXT NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (id, version)
) STRICT, WITHOUT ROWID;
CREATE TABLE stream (
  n INTEGER PRIMARY KEY,
  id BLOB NOT NULL UNIQUE,
  head INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  open INTEGER NOT NULL
, first INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE UNIQUE INDEX append_by_stream ON append (stream, seq);
CREATE INDEX fact_by_run ON fact (run);
CREATE INDEX fork_by_database ON fork (database, at, run);
CREATE INDEX job_by_time ON job (created_at DESC, id);
CREATE INDEX job_open ON job (created_at DESC, id) WHERE ended = 0;
CREATE INDEX lapse_by_number ON lapse (n);
CREATE UNIQUE INDEX lease_held ON lease (process) WHERE until IS NOT NULL;
CREATE INDEX ledger_unbegun ON ledger (attachment) WHERE unbegun = 1;
CREATE INDEX point_by_database ON point (database, taken_at DESC, id);
CREATE INDEX point_by_job ON point (job);
CREATE INDEX point_by_set ON point (set_token);
CREATE INDEX point_by_time ON point (taken_at DESC, id);
CREATE INDEX schedule_by_name ON schedule (name);
CREATE INDEX stream_open ON stream (id) WHERE open = 1;
INSERT INTO append VALUES (1, 1, 0, 2, 1, 1, 0, 0, x'7b22666f726d6174223a312c227265636f726473223a5b7b2272756e223a7b226c696e67657273223a7b226e6f6465223a317d7d7d2c7b2272756e223a7b226c696e67657273223a7b226e6f6465223a327d7d7d5d7d');
INSERT INTO append VALUES (2, 2, 0, 1, 1, 1, 0, 0, x'7b22666f726d6174223a312c227265636f726473223a5b7b2272756e223a7b226c696e67657273223a7b226e6f6465223a337d7d7d5d7d');
INSERT INTO append VALUES (3, 3, 0, 1, 1, 1, 0, 0, x'7b22666f726d6174223a312c227265636f726473223a5b7b2272756e223a7b226c696e67657273223a7b226e6f6465223a347d7d7d5d7d');
INSERT INTO append VALUES (4, 4, 0, 2, 2, 2, 0, 0, x'7b22666f726d6174223a312c227265636f726473223a5b7b2272756e223a7b226c696e67657273223a7b226e6f6465223a357d7d7d2c7b2272756e223a7b22656e646564223a7b22656e64223a22737563636565646564227d7d7d5d7d');
INSERT INTO append VALUES (5, 0, 3, 0, 3, 2, 0, 0, x'');
INSERT INTO counter VALUES ('clock', 1728007200000000);
INSERT INTO counter VALUES ('entry', 1);
INSERT INTO counter VALUES ('lapse', 1);
INSERT INTO counter VALUES ('revision', 3);
INSERT INTO cursor VALUES ('restore-point', x'ffffffffffffffff');
INSERT INTO debris VALUES ('d', 1728000002000000, '{"key":"d","run":"00000000-0000-0000-0000-000000000006","kind":{"other":"a clone"},"message":"left behind","since":"2024-10-04T00:00:02Z"}');
INSERT INTO fact VALUES ('topic', 1, 0, x'00000000000000000000000000000001', 'key', x'626f6479');
INSERT INTO fact VALUES ('topic', 3, 0, x'00000000000000000000000000000001', 'key', x'');
INSERT INTO fork VALUES (x'0000000000000000000000000000000c', x'0000000000000000000000000000000b', 1728000007000000, '{"run":"00000000-0000-0000-0000-00000000000c","database":"00000000-0000-0000-0000-00000000000b","at":"2024-10-04T00:00:07Z","point":"00000000-0000-0000-0000-000000000001","replayed_to":null}');
INSERT INTO hold VALUES ('case-7', '{"name":"case-7","points":["00000000-0000-0000-0000-000000000001"],"reason":"a case","by":"legal","since":"2024-10-04T00:00:07Z","until":"2024-10-04T00:16:40Z"}');
INSERT INTO job VALUES (x'00000000000000000000000000000005', 'key-1', 1728000001000000, 'backup', NULL, 0, '{"id":"00000000-0000-0000-0000-000000000005","kind":"backup","key":"key-1","request_digest":"","trigger":"api","group":null,"title":"","policy":null,"on_partial":"warn","created_at":"2024-10-04T00:00:01Z","planned_at":null,"ended_at":null,"runs":[],"skipped":[],"warnings":[],"failure":null}');
INSERT INTO lapse VALUES ('00000000-0000-0000-0000-00000000000a/00000000-0000-0000-0000-000000000004/00000000-0000-0000-0000-000000000003', 1, '{"attachment":"00000000-0000-0000-0000-00000000000a/00000000-0000-0000-0000-000000000004/00000000-0000-0000-0000-000000000003","at":"2024-10-04T02:00:00Z","lapse":{"from":"2024-10-04T00:01:00Z","to":"2024-10-04T00:01:00Z","count":1,"why":"missed"}}');
INSERT INTO lease VALUES (1, x'00000000000000000000000000000008', NULL, 60000000000, 0);
INSERT INTO lease VALUES (2, x'00000000000000000000000000000007', 160000000000, 60000000000, 1);
INSERT INTO ledger VALUES ('00000000-0000-0000-0000-00000000000a/00000000-0000-0000-0000-000000000004/00000000-0000-0000-0000-000000000003', 1, 1728003900000000, 1, '{"attachment":"00000000-0000-0000-0000-00000000000a/00000000-0000-0000-0000-000000000004/00000000-0000-0000-0000-000000000003","version":1,"considered":"2024-10-04T01:05:00Z","open":[{"due":"2024-10-04T01:05:00Z","schedule":"Often","version":1,"is_late":true}]}');
INSERT INTO point VALUES (x'00000000000000000000000000000001', 1728000001000000, x'00000000000000000000000000000001', NULL, NULL, x'00000000000000000000000000000320', x'00000000000000000000000000000384', 'sp-00000000000000000000000000000384-00000000000000000000000000000001', 'full', 'expiring', '{"id":"00000000-0000-0000-0000-000000000001","name":"DB1 2024-10-04T00:00:01Z","database":"00000000-0000-0000-0000-000000000001","database_name":"DB1","database_signature":null,"copy":"00000000-0000-0000-0000-000000000001@ex1","role":"active","kind":"full","consistency":"application","taken_at":"2024-10-04T00:00:01Z","job":"00000000-0000-0000-0000-000000000320","run":"00000000-0000-0000-0000-000000000384","set":"sp-00000000000000000000000000000384-00000000000000000000000000000001","policy":null,"group":null,"class":"on_demand","logs":null,"members":[],"files":[],"evidence":{"level":"app","held":"yes","grain":"per_writer","frozen_at":null,"thawed_at":null,"log_state":null},"state":"expiring","expiry":{"turn":1,"since":"2024-10-04T00:00:08Z","from":"provisional","keeps_logs":true,"is_over":false},"trust":"unverified","truncation":"not_requested","truncation_at":null,"manifest_digest":null}');
INSERT INTO policy VALUES (x'00000000000000000000000000000003', 1, '{"id":"00000000-0000-0000-0000-000000000003","version":1,"name":"Daily","kind":"full_and_log","selection":{"prefer_passive":{"exclude_lagged":true,"max_replay_queue":100,"fallback_active":true}},"multiple_truncating":"downgrade","promote_log":false,"class":"on_demand","quiesce":{"limit_ms":null,"thaw_margin_ms":2000,"on_miss":{"retry":{"times":1,"pause_ms":60000}},"floor":"at_rest"},"retention":{"count":null,"within_days":null,"gfs":null,"min_keep":1},"log_retention":"as_fulls","verification":{"before_completion":{"cap_ms":14400000,"required":true}},"on_partial":"warn"}');
INSERT INTO removed_point VALUES (x'00000000000000000000000000000002');
INSERT INTO resource_group VALUES (x'00000000000000000000000000000004', '{"id":"00000000-0000-0000-0000-000000000004","name":"Mail","members":["everything"],"policies":["00000000-0000-0000-0000-000000000003"],"batching":{"max_databases":30,"max_volumes":64},"naming":null,"tags":{}}');
INSERT INTO schedule VALUES (x'0000000000000000000000000000000a', 1, 'hourly', '{"id":"00000000-0000-0000-0000-00000000000a","version":1,"since":"2024-10-04T00:00:01Z","schedule":{"name":"Hourly","rule":{"hourly":{"every":1,"minute":5}},"zone":"Europe/Berlin","start":null,"end":null,"jitter_ms":0,"gap":"shift_forward","overlap":"both","missed":"once","overrun":"coalesce","blackouts":[]}}');
INSERT INTO schedule VALUES (x'0000000000000000000000000000000a', 2, 'often', '{"id":"00000000-0000-0000-0000-00000000000a","version":2,"since":"2024-10-04T00:00:02Z","schedule":{"name":"Often","rule":{"hourly":{"every":1,"minute":5}},"zone":"Europe/Berlin","start":null,"end":null,"jitter_ms":0,"gap":"shift_forward","overlap":"both","missed":"once","overrun":"coalesce","blackouts":[]}}');
INSERT INTO stream VALUES (1, x'0100000000000000000000000000000001', 2, 1, 1, 0);
INSERT INTO stream VALUES (2, x'00', 1, 1, 0, 0);
INSERT INTO stream VALUES (3, x'0200000000000000000000000000000009', 1, 1, 0, 0);
INSERT INTO stream VALUES (4, x'0100000000000000000000000000000002', 2, 2, 0, 0);
