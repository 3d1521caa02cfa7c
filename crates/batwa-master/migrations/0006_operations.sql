-- Operations that can be asked for again, and their history.

-- Whether the request is kept when it has ended: not where it may hold user-data with passwords.
ALTER TABLE operations ADD COLUMN keeps_request BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX operations_by_vm ON operations (agent_id, vm, id);
