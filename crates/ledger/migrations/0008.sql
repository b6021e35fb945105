-- Calls are known by their numbers, so that what comes again is not counted again.
ALTER TABLE grants ADD COLUMN pending TEXT NOT NULL DEFAULT '{}'; -- JSON: what each call under way has reserved
ALTER TABLE grants ADD COLUMN calls INTEGER NOT NULL DEFAULT 0;   -- how many were reserved
UPDATE grants SET calls = (SELECT MAX(call) FROM calls WHERE granted = grants.n)
  WHERE EXISTS (SELECT 1 FROM calls WHERE granted = grants.n);
-- What was reserved by nobody knows which call: it is spent when the grant closes.
UPDATE grants SET calls = calls + 1, pending = json_object(CAST(calls + 1 AS TEXT), json_object(
    'tokens', reserved_tokens, 'money', reserved_money,
    'wall_ms', reserved_wall, 'iterations', reserved_iterations))
  WHERE reserved_tokens + reserved_money + reserved_wall + reserved_iterations > 0;
ALTER TABLE calls ADD COLUMN digest BLOB NOT NULL DEFAULT x''; -- SHA-256 of what it was settled with
