-- Events of a request are found by the request's row: requests that are under way at the same time
-- have neighbouring rows, so that few pages of the index change in a commit. Their ids scatter.
ALTER TABLE events ADD COLUMN request_row INTEGER; -- requests.n
UPDATE events SET request_row = (SELECT n FROM requests WHERE requests.id = events.request)
  WHERE request IS NOT NULL;
DROP INDEX events_of_request;
CREATE INDEX events_of_request ON events (request_row, sequence) WHERE request_row IS NOT NULL;
