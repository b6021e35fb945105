-- Queues: what may be claimed, by whom, and in which order.

-- A queue is all work that is alike to whoever claims it. `rank` orders the queues of a kind; it
-- is null while there is nothing to claim, or as many are held as may be.
CREATE TABLE queues (
  n INTEGER PRIMARY KEY,
  kind INTEGER NOT NULL,             -- 0 requests to plan, 1 jobs, 2 changes to merge
  repository INTEGER NOT NULL,
  user TEXT NOT NULL,
  agent TEXT NOT NULL,
  provider TEXT NOT NULL,
  needs TEXT NOT NULL,               -- what a worker must be able to do: a sorted JSON list, or ''
  pin TEXT NOT NULL,                 -- the only worker that may claim, or ''
  branch TEXT NOT NULL,              -- of changes: where they are merged
  most INTEGER,                      -- how many may be held at once
  offered INTEGER NOT NULL,
  held INTEGER NOT NULL,
  rank INTEGER
) STRICT;
CREATE UNIQUE INDEX queues_by_name
  ON queues (kind, repository, branch, user, agent, provider, needs, pin);
CREATE INDEX queues_by_rank ON queues (kind, rank) WHERE rank IS NOT NULL;

-- What may be claimed now. `place` is when it became claimable, and later by the patience of its
-- priority; `subject` is the row of the request, job or change.
CREATE TABLE offers (
  queue INTEGER NOT NULL,
  place INTEGER NOT NULL,
  subject INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  request INTEGER NOT NULL,          -- its id
  PRIMARY KEY (queue, place, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX offers_of_request ON offers (request, kind, place);

-- How many jobs may be held at once, of a repository, an agent or a provider.
CREATE TABLE limits (
  kind TEXT NOT NULL,                -- repository, agent or provider
  name TEXT NOT NULL,
  most INTEGER NOT NULL,
  PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

-- Who has submitted how much: what is left of the allowance at this time.
CREATE TABLE rates (
  user TEXT PRIMARY KEY,
  left INTEGER NOT NULL,             -- thousandths of a submission
  time INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How long things took, counted by hour: `bucket` is a range of durations.
CREATE TABLE history (
  hour INTEGER NOT NULL,             -- since the epoch
  measure TEXT NOT NULL,
  bucket INTEGER NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (measure, hour, bucket)
) STRICT, WITHOUT ROWID;

ALTER TABLE requests ADD COLUMN queue INTEGER NOT NULL DEFAULT 0;
ALTER TABLE requests ADD COLUMN place INTEGER NOT NULL DEFAULT 0;
ALTER TABLE requests ADD COLUMN patience INTEGER NOT NULL DEFAULT 0;  -- microseconds
ALTER TABLE requests ADD COLUMN offered INTEGER NOT NULL DEFAULT 0;   -- how many of its jobs are
DROP INDEX requests_queued;
CREATE INDEX requests_open ON requests (n) WHERE ended IS NULL;

ALTER TABLE jobs ADD COLUMN queue INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN place INTEGER NOT NULL DEFAULT 0;         -- 0 until it is first ready
ALTER TABLE jobs ADD COLUMN offered INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN until INTEGER;                            -- parked until then
ALTER TABLE jobs ADD COLUMN parks INTEGER NOT NULL DEFAULT 0;         -- how often for a quota
ALTER TABLE jobs ADD COLUMN first_claim INTEGER;
DROP INDEX jobs_ready;
CREATE INDEX jobs_ready ON jobs (request, place, n) WHERE state = 'ready' AND offered = 0;
CREATE INDEX jobs_parked ON jobs (until) WHERE state = 'parked';
CREATE INDEX jobs_dead ON jobs (n) WHERE state = 'dead';

ALTER TABLE changes ADD COLUMN queue INTEGER NOT NULL DEFAULT 0;
ALTER TABLE changes ADD COLUMN place INTEGER NOT NULL DEFAULT 0;
DROP INDEX changes_queued;

-- The deadline before the holder was given more time, because its owner is alive.
ALTER TABLE leases ADD COLUMN graced INTEGER;
