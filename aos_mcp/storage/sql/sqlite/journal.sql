-- name: step_insert
-- The fence is checked in the statement that writes: a kernel that lost the process adds nothing.
INSERT INTO step (
    pid, number, call, effect, state, intent, result, request_id, idempotency_key, fence, started_at, ended_at,
    basis, stamp
)
SELECT
    :pid, :number, :call, :effect, :state, :intent, :result, :request_id, :idempotency_key, :fence, :started_at,
    :ended_at, :basis, (
        SELECT max(
            coalesce((SELECT max(stamp) FROM page WHERE pid = :pid), 0),
            coalesce((SELECT max(stamp) FROM page_version WHERE pid = :pid), 0)
        )
    )
WHERE NOT EXISTS (SELECT 1 FROM process WHERE pid = :pid AND fence > :fence);

-- name: step_put
UPDATE step SET
    call = :call, effect = :effect, state = :state, intent = :intent, result = :result, request_id = :request_id,
    idempotency_key = :idempotency_key, fence = :fence, started_at = :started_at, ended_at = :ended_at
WHERE pid = :pid AND number = :number
    AND NOT EXISTS (SELECT 1 FROM process WHERE pid = :pid AND fence > :fence);

-- name: step_get
SELECT * FROM step WHERE pid = :pid AND number = :number;

-- name: step_list
SELECT * FROM step WHERE pid = :pid AND number > :after ORDER BY number LIMIT :limit;

-- name: step_last
SELECT * FROM step WHERE pid = :pid ORDER BY number DESC LIMIT :limit;

-- name: step_by_request
SELECT * FROM step WHERE pid = :pid AND request_id = :request_id ORDER BY number DESC LIMIT 1;

-- name: step_open
SELECT * FROM step WHERE pid = :pid AND state = 'intent' ORDER BY number;

-- name: step_unowned
-- A process that ended settled its own; what is left is of nobody that is in the table.
SELECT step.* FROM step
WHERE step.state = 'intent' AND NOT EXISTS (SELECT 1 FROM process WHERE process.pid = step.pid)
ORDER BY step.pid, step.number;

-- name: step_unknown
-- By the index of those few: the key would read every step that the processes ever made.
SELECT step.pid, step.number FROM json_each(:pids) AS wanted
JOIN step INDEXED BY step_unknown ON step.pid = wanted.value AND step.state = 'unknown'
ORDER BY step.pid, step.number;
