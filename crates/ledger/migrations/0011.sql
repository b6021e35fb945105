-- Notifications that were given up, until somebody has them told again or their request is removed.
CREATE TABLE undelivered (
  n INTEGER PRIMARY KEY,
  event INTEGER NOT NULL,            -- the id of the event, and of the notification
  session INTEGER NOT NULL,          -- sessions.n
  request INTEGER NOT NULL,          -- requests.n
  time INTEGER NOT NULL,             -- when it was given up
  unreached TEXT NOT NULL            -- a JSON list: each sink that it has not reached, and why
) STRICT;
CREATE INDEX undelivered_of_request ON undelivered (request);

-- What is held is little, and each claim asks for it.
CREATE INDEX queues_held ON queues (kind) WHERE held > 0;
