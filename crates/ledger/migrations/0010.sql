-- A clock that is put back is noticed by what was parked later than now.
ALTER TABLE jobs ADD COLUMN parked INTEGER; -- since when; null for what was parked before this was known
CREATE INDEX jobs_parked_since ON jobs (parked) WHERE state = 'parked';
