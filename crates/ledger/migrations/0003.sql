-- Every blob that a row names, with how many names it has: one for each time that an event, an
-- exchange or an ask names it. What nothing names is garbage; it stays here until it is collected.
CREATE TABLE blobs (
  id BLOB PRIMARY KEY,               -- SHA-256
  bytes INTEGER NOT NULL,            -- of its file
  refs INTEGER NOT NULL CHECK (refs >= 0)
) STRICT, WITHOUT ROWID;
CREATE INDEX blobs_unused ON blobs (id) WHERE refs = 0;

-- The first sequence that is kept.
ALTER TABLE sessions ADD COLUMN first INTEGER NOT NULL DEFAULT 1;

CREATE INDEX submissions_of_request ON submissions (request);
