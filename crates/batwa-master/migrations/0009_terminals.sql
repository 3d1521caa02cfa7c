-- Whose terminal sessions are, and who is invited to them.

-- NULL: nobody's that is known here. Ids are never used again, unlike names.
ALTER TABLE terminal_openers ADD COLUMN user_id TEXT;
UPDATE terminal_openers SET user_id = (SELECT id FROM users WHERE users.name = terminal_openers.opened_by);

CREATE TABLE terminal_guests (
    terminal_id TEXT NOT NULL REFERENCES terminal_openers (terminal_id) ON DELETE CASCADE,
    user_id     TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    access      TEXT NOT NULL,
    invited_at  BIGINT NOT NULL,
    PRIMARY KEY (terminal_id, user_id)
);
