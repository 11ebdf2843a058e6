-- Ended processes whose words were taken out for good: they hold on to no payload any more.
CREATE TABLE forgotten (
    pid TEXT PRIMARY KEY,
    at REAL NOT NULL
) STRICT, WITHOUT ROWID;
