-- What an admin wrote about a machine; VMs that vanished; changes of links; who opened a terminal.

ALTER TABLE agents ADD COLUMN notes TEXT NOT NULL DEFAULT '';

-- Since when its agent does not know the VM any more, although nobody asked for its end.
ALTER TABLE vms ADD COLUMN missing_since BIGINT;

-- The last changes of each agent's link; ids rise with time.
CREATE TABLE agent_links (
    id       TEXT NOT NULL PRIMARY KEY,
    agent_id TEXT NOT NULL,
    at       BIGINT NOT NULL,
    status   TEXT NOT NULL,
    link     TEXT NOT NULL,
    reason   TEXT
);
CREATE INDEX agent_links_by_agent ON agent_links (agent_id, id);

CREATE TABLE terminal_openers (
    terminal_id TEXT NOT NULL PRIMARY KEY,
    agent_id    TEXT NOT NULL,
    opened_by   TEXT NOT NULL,
    opened_at   BIGINT NOT NULL
);

-- An operation's log is in its agent's journal, and its last lines in the error of a failed one.
DROP TABLE operation_logs;
