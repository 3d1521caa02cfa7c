-- People and their credentials, settings, and the audit. The dialect is what SQLite and PostgreSQL share:
-- TEXT, BIGINT, BOOLEAN, BYTEA, DOUBLE PRECISION; times are milliseconds since 1970 in UTC, JSON is TEXT.
-- Migrations are append-only once a release holds them.

CREATE TABLE settings (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE users (
    id                   TEXT NOT NULL PRIMARY KEY,
    name                 TEXT NOT NULL,
    -- The name in lower case: two accounts may not differ by case alone.
    name_key             TEXT NOT NULL,
    role                 TEXT NOT NULL,
    terminal             BOOLEAN NOT NULL,
    -- Argon2id in PHC form.
    password_hash        TEXT NOT NULL,
    created_at           BIGINT NOT NULL,
    last_signed_in_at    BIGINT,
    CONSTRAINT users_name_key UNIQUE (name_key)
);

CREATE TABLE sessions (
    id           TEXT NOT NULL PRIMARY KEY,
    user_id      TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- SHA-256 of the secret in the cookie.
    secret_hash  BYTEA NOT NULL,
    address      TEXT NOT NULL,
    user_agent   TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    CONSTRAINT sessions_secret_hash UNIQUE (secret_hash)
);
CREATE INDEX sessions_by_user ON sessions (user_id);

-- Addresses from which an account was signed in to: others' failures do not hold them up.
CREATE TABLE sign_in_addresses (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    address TEXT NOT NULL,
    last_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, address)
);

CREATE TABLE api_tokens (
    id           TEXT NOT NULL PRIMARY KEY,
    user_id      TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    -- NULL: whatever its owner's is.
    role         TEXT,
    -- SHA-256 of the token.
    secret_hash  BYTEA NOT NULL,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT,
    last_used_at BIGINT,
    CONSTRAINT api_tokens_secret_hash UNIQUE (secret_hash)
);
CREATE INDEX api_tokens_by_user ON api_tokens (user_id);

CREATE TABLE audit (
    seq        BIGINT NOT NULL PRIMARY KEY,
    at         BIGINT NOT NULL,
    actor      TEXT NOT NULL,
    via        TEXT NOT NULL,
    address    TEXT NOT NULL,
    action     TEXT NOT NULL,
    target     TEXT NOT NULL,
    result     TEXT NOT NULL,
    detail     TEXT,
    request_id TEXT NOT NULL,
    hash       TEXT NOT NULL
);
