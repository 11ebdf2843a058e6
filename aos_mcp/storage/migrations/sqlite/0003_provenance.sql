-- Where a page's text comes from, and how it lies. `labels` is a sorted JSON array; `listed` is whether a page that is
-- out of the window has a handle of its own.
ALTER TABLE page ADD COLUMN labels TEXT NOT NULL DEFAULT '[]';
ALTER TABLE page ADD COLUMN origin TEXT;
ALTER TABLE page ADD COLUMN pieces INTEGER NOT NULL DEFAULT 0;
ALTER TABLE page ADD COLUMN listed INTEGER NOT NULL DEFAULT 1;
