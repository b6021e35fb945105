-- Events of a session are a chain, from its last one back, and every sixty-fourth of them is found
-- by its sequence. An index of all of them has as many ends as there are sessions: each commit
-- would write one page of it for each session that it tells something of.

ALTER TABLE events ADD COLUMN previous INTEGER; -- events.n of the one before it in its session
UPDATE events SET previous = (SELECT e.n FROM events e
  WHERE e.session = events.session AND e.sequence = events.sequence - 1);
ALTER TABLE sessions ADD COLUMN last INTEGER;   -- events.n of its last event
UPDATE sessions SET last = (SELECT n FROM events
  WHERE session = sessions.n AND events.sequence = sessions.sequence);
DROP INDEX events_of_session;
CREATE INDEX events_by_place ON events (session, sequence) WHERE sequence % 64 = 0;

-- Live leases are few, and each heartbeat would move its lease in this index.
DROP INDEX leases_by_deadline;

-- Notifications in the order in which they were stored: their ids scatter.
ALTER TABLE outbox RENAME TO outbox_before;
CREATE TABLE outbox (
  n INTEGER PRIMARY KEY,
  event INTEGER NOT NULL,            -- the id of the event, and of the notification
  session INTEGER NOT NULL,          -- sessions.n
  request INTEGER NOT NULL,          -- requests.n
  due INTEGER,                       -- when it may be claimed; null while it is held
  claims INTEGER NOT NULL,           -- how often it was claimed
  sinks TEXT                         -- a JSON list of those that it must still reach; null for all
) STRICT;
INSERT INTO outbox (event, session, request, due, claims, sinks)
  SELECT o.event, o.session, r.n, o.due, o.claims, o.sinks
  FROM outbox_before o JOIN requests r ON r.id = o.request ORDER BY r.n, o.due;
DROP TABLE outbox_before;
CREATE INDEX outbox_due ON outbox (due) WHERE due IS NOT NULL;
CREATE INDEX outbox_held ON outbox (event) WHERE due IS NULL;
CREATE INDEX outbox_of_request ON outbox (request);
