-- Agents that dial in: their keys, and the tokens they join with.

-- Ed25519; NULL for agents that are reached at an address.
ALTER TABLE agents ADD COLUMN public_key BYTEA;
ALTER TABLE registrations ADD COLUMN public_key BYTEA;

CREATE TABLE join_tokens (
    id         TEXT NOT NULL PRIMARY KEY,
    -- Derived from the token's secret, which is not kept: checks proofs, and makes no token.
    secret     BYTEA NOT NULL,
    uses       BIGINT NOT NULL,
    used       BIGINT NOT NULL,
    labels     TEXT NOT NULL,
    approve    BOOLEAN NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked    BOOLEAN NOT NULL
);

-- Which agents a token let in.
CREATE TABLE join_token_uses (
    token_id TEXT NOT NULL REFERENCES join_tokens (id) ON DELETE CASCADE,
    seq      BIGINT NOT NULL,
    agent_id TEXT NOT NULL,
    used_at  BIGINT NOT NULL,
    PRIMARY KEY (token_id, seq)
);
