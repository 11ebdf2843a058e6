-- What embedders made of pages. AUTOINCREMENT: a serial is never used twice, so "read through serial" stays true while
-- vectors of a former model are dropped. A page with nothing to embed has one part without a body.
CREATE TABLE vector (
    serial INTEGER PRIMARY KEY AUTOINCREMENT,
    model TEXT NOT NULL,
    page INTEGER NOT NULL REFERENCES page (serial),
    part INTEGER NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (model, page, part)
) STRICT;
