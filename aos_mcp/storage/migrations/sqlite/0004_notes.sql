-- Long-term memory: what a note is beside its page, what belongs together, and every change, so that it can be undone.
CREATE TABLE note (
    page INTEGER PRIMARY KEY REFERENCES page (serial),
    page_id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    namespace TEXT NOT NULL,
    valid_from REAL NOT NULL,
    valid_until REAL,
    superseded_by TEXT
) STRICT;

CREATE INDEX note_namespace ON note (owner, namespace, page);

CREATE TABLE note_link (
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    made_by TEXT NOT NULL,
    made_at REAL NOT NULL,
    PRIMARY KEY (source, target)
) STRICT, WITHOUT ROWID;

CREATE INDEX note_link_target ON note_link (target, source);

CREATE TABLE note_change (
    serial INTEGER PRIMARY KEY,
    owner TEXT NOT NULL,
    writer TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('wrote', 'superseded', 'linked')),
    page_id TEXT NOT NULL,
    other TEXT,
    at REAL NOT NULL,
    undone_at REAL
) STRICT;

CREATE INDEX note_change_writer ON note_change (owner, writer, serial);
