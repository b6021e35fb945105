-- Times are microseconds since the epoch, ids are their sixty bits, states their words.
-- `n` counts rows in the order of their creation; bulk that never changes has tables of its own,
-- so that a change of state rewrites a small row.

CREATE TABLE sessions (
  n INTEGER PRIMARY KEY,
  id INTEGER NOT NULL UNIQUE,
  name TEXT NOT NULL UNIQUE,
  created INTEGER NOT NULL,
  sequence INTEGER NOT NULL          -- of the last event
) STRICT;

CREATE TABLE repositories (
  n INTEGER PRIMARY KEY,
  id INTEGER NOT NULL UNIQUE,
  path TEXT NOT NULL UNIQUE,
  created INTEGER NOT NULL
) STRICT;

CREATE TABLE events (
  n INTEGER PRIMARY KEY,
  session INTEGER NOT NULL,          -- sessions.n
  sequence INTEGER NOT NULL,
  id INTEGER NOT NULL,
  time INTEGER NOT NULL,
  request INTEGER,
  attempt INTEGER,                   -- only where the event is a check's evidence
  body TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX events_of_session ON events (session, sequence);
CREATE INDEX events_of_request ON events (request, sequence) WHERE request IS NOT NULL;
CREATE INDEX evidence_of_attempt ON events (attempt, n) WHERE attempt IS NOT NULL;

-- total + overdraft = free + reserved + committed, in each measure.
CREATE TABLE accounts (
  n INTEGER PRIMARY KEY,
  parent INTEGER,                    -- accounts.n
  total_tokens INTEGER NOT NULL, total_money INTEGER NOT NULL,
  total_wall INTEGER NOT NULL, total_iterations INTEGER NOT NULL,
  free_tokens INTEGER NOT NULL, free_money INTEGER NOT NULL,
  free_wall INTEGER NOT NULL, free_iterations INTEGER NOT NULL,
  reserved_tokens INTEGER NOT NULL, reserved_money INTEGER NOT NULL,
  reserved_wall INTEGER NOT NULL, reserved_iterations INTEGER NOT NULL,
  committed_tokens INTEGER NOT NULL, committed_money INTEGER NOT NULL,
  committed_wall INTEGER NOT NULL, committed_iterations INTEGER NOT NULL,
  overdraft_tokens INTEGER NOT NULL, overdraft_money INTEGER NOT NULL,
  overdraft_wall INTEGER NOT NULL, overdraft_iterations INTEGER NOT NULL,
  closed INTEGER NOT NULL
) STRICT;

CREATE TABLE requests (
  n INTEGER PRIMARY KEY,
  id INTEGER NOT NULL UNIQUE,
  session INTEGER NOT NULL,
  repository INTEGER NOT NULL,
  branch TEXT NOT NULL,              -- the integration branch
  parallel INTEGER NOT NULL,         -- how many jobs may be held at once
  held INTEGER NOT NULL,             -- how many are
  account INTEGER NOT NULL,          -- accounts.n
  state TEXT NOT NULL,
  lost INTEGER NOT NULL DEFAULT 0,   -- how often its planner was lost
  failure TEXT,
  created INTEGER NOT NULL,
  ended INTEGER
) STRICT;
CREATE INDEX requests_queued ON requests (n) WHERE state = 'queued';
CREATE INDEX requests_of_repository ON requests (repository, n);

CREATE TABLE asks (
  request INTEGER PRIMARY KEY,       -- requests.n
  body TEXT NOT NULL
) STRICT;

CREATE TABLE submissions (
  key TEXT PRIMARY KEY,
  digest BLOB NOT NULL,              -- SHA-256 of the session and the ask
  request INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE jobs (
  n INTEGER PRIMARY KEY,
  id INTEGER NOT NULL UNIQUE,
  request INTEGER NOT NULL,
  account INTEGER NOT NULL,          -- accounts.n
  state TEXT NOT NULL,
  claims INTEGER NOT NULL,           -- how often it was claimed
  attempts INTEGER NOT NULL,         -- how many attempts were started
  attempt INTEGER,                   -- the open one
  failure TEXT,
  created INTEGER NOT NULL,
  ended INTEGER
) STRICT;
CREATE INDEX jobs_of_request ON jobs (request, n);
CREATE INDEX jobs_ready ON jobs (n) WHERE state = 'ready';

CREATE TABLE specs (
  job INTEGER PRIMARY KEY,           -- jobs.n
  body TEXT NOT NULL
) STRICT;

CREATE TABLE dependencies (
  job INTEGER NOT NULL,
  place INTEGER NOT NULL,
  needs INTEGER NOT NULL,
  PRIMARY KEY (job, place)
) STRICT, WITHOUT ROWID;

CREATE TABLE attempts (
  n INTEGER PRIMARY KEY,
  id INTEGER NOT NULL UNIQUE,
  job INTEGER NOT NULL,
  request INTEGER NOT NULL,
  number INTEGER NOT NULL,
  base TEXT NOT NULL,
  agent TEXT NOT NULL,
  model TEXT,
  sandbox TEXT NOT NULL,
  state TEXT NOT NULL,
  failure TEXT,
  summary TEXT NOT NULL,
  tree TEXT,
  tokens INTEGER NOT NULL,           -- what it spent
  money INTEGER NOT NULL,
  wall INTEGER NOT NULL,
  iterations INTEGER NOT NULL,
  created INTEGER NOT NULL,
  ended INTEGER
) STRICT;
CREATE INDEX attempts_of_job ON attempts (job, n);

CREATE TABLE changes (
  n INTEGER PRIMARY KEY,
  id INTEGER NOT NULL UNIQUE,
  attempt INTEGER NOT NULL UNIQUE,
  job INTEGER NOT NULL UNIQUE,
  request INTEGER NOT NULL,
  repository INTEGER NOT NULL,
  branch TEXT NOT NULL,
  base TEXT NOT NULL,
  object TEXT NOT NULL,              -- the commit that the gate passed
  state TEXT NOT NULL,
  integrated TEXT,                   -- the commit on the branch; before the state says so, the intent
  conflicts TEXT NOT NULL,           -- a JSON list
  failure TEXT,
  checked INTEGER NOT NULL,
  created INTEGER NOT NULL,
  ended INTEGER
) STRICT;
CREATE INDEX changes_of_request ON changes (request, n);
CREATE INDEX changes_queued ON changes (n) WHERE state = 'queued';
CREATE INDEX changes_in_hand ON changes (repository, branch) WHERE state IN ('merging', 'checking');

-- A row is a live lease; `token` is the fence, and no token comes twice.
CREATE TABLE leases (
  token INTEGER PRIMARY KEY AUTOINCREMENT,
  id INTEGER NOT NULL,
  kind TEXT NOT NULL,                -- request, job or change
  subject INTEGER NOT NULL,
  owner INTEGER NOT NULL,
  deadline INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX leases_of_subject ON leases (kind, subject);
CREATE INDEX leases_by_deadline ON leases (deadline);

CREATE TABLE grants (
  n INTEGER PRIMARY KEY,
  id INTEGER NOT NULL UNIQUE,
  lease INTEGER NOT NULL,            -- leases.token
  request INTEGER NOT NULL,
  attempt INTEGER,                   -- none where a planner spends
  account INTEGER NOT NULL,          -- accounts.n
  reserved_tokens INTEGER NOT NULL, reserved_money INTEGER NOT NULL,
  reserved_wall INTEGER NOT NULL, reserved_iterations INTEGER NOT NULL,
  spent_tokens INTEGER NOT NULL, spent_money INTEGER NOT NULL,
  spent_wall INTEGER NOT NULL, spent_iterations INTEGER NOT NULL,
  closed INTEGER NOT NULL
) STRICT;
CREATE INDEX grants_open ON grants (lease) WHERE closed = 0;
CREATE INDEX grants_of_attempt ON grants (attempt, n) WHERE attempt IS NOT NULL;
CREATE INDEX grants_of_request ON grants (request, n);

CREATE TABLE calls (
  granted INTEGER NOT NULL,          -- grants.n
  call INTEGER NOT NULL,
  exchange TEXT,
  PRIMARY KEY (granted, call)
) STRICT, WITHOUT ROWID;
