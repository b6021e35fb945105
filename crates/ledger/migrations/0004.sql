-- An attempt outlives the process that worked on it.
ALTER TABLE attempts ADD COLUMN was TEXT;      -- while it is suspended: the state that it left
ALTER TABLE attempts ADD COLUMN resumed INTEGER; -- since when its wall time is not booked, if it was
ALTER TABLE jobs ADD COLUMN lost INTEGER NOT NULL DEFAULT 0; -- holders lost in a row without a step
ALTER TABLE jobs ADD COLUMN mark INTEGER NOT NULL DEFAULT 0; -- its session's sequence at the claim
CREATE INDEX jobs_open ON jobs (attempt) WHERE attempt IS NOT NULL;
