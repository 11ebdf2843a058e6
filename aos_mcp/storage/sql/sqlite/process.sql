-- name: process_insert
INSERT INTO process (
    pid, parent, program, owner, name, agent, state, model, fallbacks, priority, depth, rights, workspace, step, position,
    waiting_for, pending, finishing, faults, wake_at, exit_code, exit_reason, result, fence, version, lease_holder,
    lease_until, idempotency_key, forked_from, created_at, updated_at, ended_at, since, ready_at, waiting_s, running_s,
    blocked_s, preempted, wasted_tokens, guest
) VALUES (
    :pid, :parent, :program, :owner, :name, :agent, :state, :model, :fallbacks, :priority, :depth, :rights, :workspace, :step,
    :position, :waiting_for, :pending, :finishing, :faults, :wake_at, :exit_code, :exit_reason, :result, :fence,
    :version, :lease_holder, :lease_until, :idempotency_key, :forked_from, :created_at, :updated_at, :ended_at, :since,
    :ready_at, :waiting_s, :running_s, :blocked_s, :preempted, :wasted_tokens, :guest
);

-- name: process_get
SELECT * FROM process WHERE pid = :pid;

-- name: process_put
-- What `process_note` counts stays as it is: it makes no new version. Renewal writes no new version either, so a holder's own later write may carry an older lease: the longer one stays.
UPDATE process SET
    parent = :parent, program = :program, owner = :owner, name = :name, agent = :agent, state = :state, model = :model,
    fallbacks = :fallbacks,
    priority = :priority, depth = :depth, rights = :rights, workspace = :workspace, step = :step,
    position = :position, waiting_for = :waiting_for, pending = :pending, finishing = :finishing, faults = :faults,
    wake_at = :wake_at, exit_code = :exit_code, exit_reason = :exit_reason, result = :result, fence = :fence,
    version = version + 1, lease_holder = :lease_holder,
    lease_until = CASE
        WHEN lease_holder = :lease_holder AND fence = :fence THEN max(coalesce(lease_until, :lease_until), :lease_until)
        ELSE :lease_until
    END,
    idempotency_key = :idempotency_key, forked_from = :forked_from, created_at = :created_at, updated_at = :updated_at,
    ended_at = :ended_at, since = :since, ready_at = :ready_at, waiting_s = :waiting_s, running_s = :running_s,
    blocked_s = :blocked_s, guest = :guest
WHERE pid = :pid AND version = :version
RETURNING version, lease_until;

-- name: process_by_key
SELECT * FROM process WHERE owner = :owner AND idempotency_key = :idempotency_key;

-- name: process_find_prefix
SELECT * FROM process
WHERE owner = :owner AND pid >= :prefix AND substr(pid, 1, length(:prefix)) = :prefix
ORDER BY pid LIMIT :limit;

-- name: process_list
SELECT * FROM process
WHERE (:owner IS NULL OR owner = :owner)
    AND (:after_at IS NULL OR (created_at, pid) < (:after_at, :after_pid))
ORDER BY created_at DESC, pid DESC LIMIT :limit;

-- name: process_list_by_state
SELECT * FROM process
WHERE state IN (SELECT value FROM json_each(:states))
    AND (:owner IS NULL OR owner = :owner)
    AND (:after_at IS NULL OR (created_at, pid) < (:after_at, :after_pid))
ORDER BY created_at DESC, pid DESC LIMIT :limit;

-- name: process_list_by_parent
SELECT * FROM process
WHERE parent = :parent
    AND (:program IS NULL OR program = :program)
    AND (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
    AND (:owner IS NULL OR owner = :owner)
    AND (:after_at IS NULL OR (created_at, pid) < (:after_at, :after_pid))
ORDER BY created_at DESC, pid DESC LIMIT :limit;

-- name: process_list_by_program
SELECT * FROM process
WHERE program = :program
    AND (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
    AND (:owner IS NULL OR owner = :owner)
    AND (:after_at IS NULL OR (created_at, pid) < (:after_at, :after_pid))
ORDER BY created_at DESC, pid DESC LIMIT :limit;

-- name: process_children
SELECT * FROM process WHERE parent = :parent ORDER BY created_at, pid;

-- name: process_count
SELECT count(*) AS n FROM process WHERE state IN (SELECT value FROM json_each(:states));

-- name: process_count_children
SELECT count(*) AS n FROM process
WHERE parent = :parent AND state IN (SELECT value FROM json_each(:states));

-- name: process_counts
SELECT state, count(*) AS n FROM process GROUP BY state;

-- name: process_leased
-- What has yet to start after others is blocked too, and nobody holds it; nor a guest, whose calls may be under way.
SELECT * FROM process
WHERE state IN ('running', 'blocked') AND (lease_holder IS NOT NULL OR guest = 1) ORDER BY pid;

-- name: process_renew
UPDATE process SET lease_until = max(coalesce(lease_until, :until), :until) WHERE lease_holder = :holder;

-- name: process_alarm
SELECT min(wake_at) AS wake_at FROM process WHERE state = 'ready' AND wake_at IS NOT NULL;

-- name: racer_insert
INSERT INTO racer (pid, race) VALUES (:pid, :race);

-- name: racer_rivals
SELECT other.pid FROM racer AS own JOIN racer AS other ON other.race = own.race
WHERE own.pid = :pid AND other.pid <> :pid
ORDER BY other.pid;
