-- Saved user-data, and the SSH keys that people have put into the VMs they make.

CREATE TABLE templates (
    id          TEXT NOT NULL PRIMARY KEY,
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    text        TEXT NOT NULL,
    -- As JSON, without the values of secrets.
    variables   TEXT NOT NULL,
    -- Those values by name, as JSON sealed with the key in the state folder; empty: there are none.
    secrets     TEXT NOT NULL,
    -- NULL: that account is gone.
    owner_id    TEXT REFERENCES users (id) ON DELETE SET NULL,
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL,
    CONSTRAINT templates_name UNIQUE (name)
);

CREATE TABLE ssh_keys (
    id          TEXT NOT NULL PRIMARY KEY,
    user_id     TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    public_key  TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    CONSTRAINT ssh_keys_user_fingerprint UNIQUE (user_id, fingerprint)
);
