-- Forks of one moment that race: the first that is done ends the others.
CREATE TABLE racer (
    pid TEXT NOT NULL PRIMARY KEY,
    race TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX racer_race ON racer (race, pid);
