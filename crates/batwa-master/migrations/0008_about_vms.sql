-- What people wrote about VMs.

-- What they call it; NULL: its name.
ALTER TABLE vms ADD COLUMN display_name TEXT;
ALTER TABLE vms ADD COLUMN notes TEXT NOT NULL DEFAULT '';
-- The account that set each label last, as JSON.
ALTER TABLE vms ADD COLUMN label_sources TEXT NOT NULL DEFAULT '{}';
