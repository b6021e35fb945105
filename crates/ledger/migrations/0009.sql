-- Requests and changes that were put back wait before they are offered again, and not for ever.
ALTER TABLE requests ADD COLUMN until INTEGER;                       -- queued, and offered from then on
ALTER TABLE requests ADD COLUMN postponed INTEGER NOT NULL DEFAULT 0; -- how often it was put back
CREATE INDEX requests_waiting ON requests (until) WHERE until IS NOT NULL;
ALTER TABLE changes ADD COLUMN until INTEGER;                        -- queued, and offered from then on
ALTER TABLE changes ADD COLUMN postponed INTEGER NOT NULL DEFAULT 0; -- how often it was put back
ALTER TABLE changes ADD COLUMN lost INTEGER NOT NULL DEFAULT 0;      -- how often in a row its integrator was lost
CREATE INDEX changes_waiting ON changes (until) WHERE until IS NOT NULL;
