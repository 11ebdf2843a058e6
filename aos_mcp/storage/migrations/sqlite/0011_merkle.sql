-- A head also names the root of the tree over all records up to it; those of before have none.
ALTER TABLE audit_head ADD COLUMN root TEXT NOT NULL DEFAULT '';
