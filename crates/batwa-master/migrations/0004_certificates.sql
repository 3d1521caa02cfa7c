-- The certificate that an agent's port shows over TLS: SHA-256 in hex, as the agent registered with it.
ALTER TABLE agents ADD COLUMN certificate TEXT;
ALTER TABLE registrations ADD COLUMN certificate TEXT;
