-- name: checkpoint_insert
INSERT INTO checkpoint (checkpoint_id, pid, owner, step, label, at, snapshot, manifest)
VALUES (:checkpoint_id, :pid, :owner, :step, :label, :at, :snapshot, :manifest);

-- name: checkpoint_get
SELECT * FROM checkpoint WHERE checkpoint_id = :checkpoint_id;

-- name: checkpoint_list
SELECT * FROM checkpoint WHERE pid = :pid ORDER BY at DESC, serial DESC LIMIT :limit;

-- name: checkpoint_before
SELECT * FROM checkpoint WHERE pid = :pid AND step <= :step ORDER BY at DESC, serial DESC LIMIT 1;

-- name: checkpoint_drop
-- All but the newest of a process's checkpoints under one label.
DELETE FROM checkpoint WHERE serial IN (
    SELECT serial FROM checkpoint WHERE pid = :pid AND label = :label ORDER BY at DESC, serial DESC LIMIT -1 OFFSET :keep
);
