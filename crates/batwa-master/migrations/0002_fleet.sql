-- What the master knows of agents, VMs and operations.

CREATE TABLE agents (
    id              TEXT NOT NULL PRIMARY KEY,
    -- What people call it; NULL: its host name.
    name            TEXT,
    hostname        TEXT NOT NULL,
    api_url         TEXT NOT NULL,
    -- in_process, direct, tunnel.
    link            TEXT NOT NULL,
    -- Whether it speaks only the old paths; NULL: not known yet.
    legacy          BOOLEAN,
    -- The key the master presents to it; readable, as it must be sent.
    api_key         TEXT,
    -- SHA-256 of the key, its first 16 hex digits.
    fingerprint     TEXT,
    -- The address it registered from; a keyless agent that comes from another is pending again.
    address         TEXT NOT NULL,
    labels          TEXT NOT NULL,
    cordoned        BOOLEAN NOT NULL,
    revoked         BOOLEAN NOT NULL,
    -- The last AgentInfo as JSON.
    info            TEXT,
    created_at      BIGINT NOT NULL,
    last_seen_at    BIGINT
);

CREATE TABLE agent_keys (
    id           TEXT NOT NULL PRIMARY KEY,
    name         TEXT NOT NULL,
    -- The only agent that may use it; NULL until the first one does.
    agent_id     TEXT,
    key_hash     BYTEA NOT NULL,
    fingerprint  TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    last_used_at BIGINT,
    CONSTRAINT agent_keys_key_hash UNIQUE (key_hash)
);

-- Old-way registrations that wait for an admin: one row an agent id and key.
CREATE TABLE registrations (
    agent_id    TEXT NOT NULL,
    -- Empty: it gave no key.
    fingerprint TEXT NOT NULL,
    hostname    TEXT NOT NULL,
    api_url     TEXT NOT NULL,
    address     TEXT NOT NULL,
    api_key     TEXT,
    labels      TEXT NOT NULL,
    first_seen  BIGINT NOT NULL,
    last_seen   BIGINT NOT NULL,
    PRIMARY KEY (agent_id, fingerprint)
);

-- The last known state of each VM, as JSON.
CREATE TABLE vms (
    agent_id TEXT NOT NULL,
    name     TEXT NOT NULL,
    vm       TEXT NOT NULL,
    labels   TEXT NOT NULL,
    PRIMARY KEY (agent_id, name)
);

CREATE TABLE operations (
    id              TEXT NOT NULL PRIMARY KEY,
    agent_id        TEXT NOT NULL,
    vm              TEXT NOT NULL,
    kind            TEXT NOT NULL,
    state           TEXT NOT NULL,
    -- The StartOperation that was sent, as JSON.
    request         TEXT NOT NULL,
    -- The Operation as last heard, as JSON.
    operation       TEXT NOT NULL,
    requested_by    TEXT NOT NULL,
    -- Idempotency-Key, scoped to the caller, and the hash of the body it came with.
    idempotency_key TEXT,
    body_hash       BYTEA,
    created_at      BIGINT NOT NULL,
    finished_at     BIGINT,
    CONSTRAINT operations_idempotency_key UNIQUE (idempotency_key)
);
CREATE INDEX operations_by_state ON operations (state, created_at);

CREATE TABLE operation_logs (
    operation_id TEXT NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    seq          BIGINT NOT NULL,
    at           BIGINT NOT NULL,
    text         TEXT NOT NULL,
    PRIMARY KEY (operation_id, seq)
);
