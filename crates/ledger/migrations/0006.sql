-- Notifications that are still to be told: one for each event that a person may want to hear of.
-- A row goes when it was told everywhere, or given up.

CREATE TABLE outbox (
  event INTEGER PRIMARY KEY,         -- the id of the event, and of the notification
  session INTEGER NOT NULL,          -- sessions.n
  request INTEGER NOT NULL,          -- its id
  due INTEGER,                       -- when it may be claimed; null while it is held
  claims INTEGER NOT NULL,           -- how often it was claimed
  sinks TEXT                         -- a JSON list of those that it must still reach; null for all
) STRICT;
CREATE INDEX outbox_due ON outbox (due) WHERE due IS NOT NULL;
CREATE INDEX outbox_of_request ON outbox (request);

-- What a session is found by, which stays when a person gives it another name.
ALTER TABLE sessions ADD COLUMN key TEXT NOT NULL DEFAULT '';
UPDATE sessions SET key = name;
CREATE UNIQUE INDEX sessions_by_key ON sessions (key);
