-- The models an agent goes on with where the one it has cannot answer, in order, joined by commas.
ALTER TABLE process ADD COLUMN fallbacks TEXT NOT NULL DEFAULT '';
