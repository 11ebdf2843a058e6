-- name: migration_tables
SELECT
    count(*) AS n, coalesce(max(name = 'migration'), 0) AS recorded
FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~';

-- name: migration_create
CREATE TABLE IF NOT EXISTS migration (
    name TEXT NOT NULL PRIMARY KEY,
    checksum TEXT NOT NULL,
    applied_at REAL NOT NULL
) STRICT;

-- name: migration_list
SELECT name, checksum FROM migration ORDER BY name;

-- name: migration_insert
INSERT INTO migration (name, checksum, applied_at) VALUES (:name, :checksum, :applied_at);
