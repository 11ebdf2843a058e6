-- name: process_ready
SELECT pid, program, owner, priority, coalesce(ready_at, created_at) AS ready_at, created_at, model,
    fallbacks <> '' AS chained
FROM process
WHERE state = 'ready' AND (wake_at IS NULL OR wake_at <= :now)
ORDER BY coalesce(ready_at, created_at), pid LIMIT :limit;

-- name: process_ready_among
SELECT pid, program, owner, priority, coalesce(ready_at, created_at) AS ready_at, created_at, model,
    fallbacks <> '' AS chained
FROM process
WHERE pid IN (SELECT value FROM json_each(:pids))
    AND state = 'ready' AND (wake_at IS NULL OR wake_at <= :now)
ORDER BY coalesce(ready_at, created_at), pid LIMIT :limit;

-- name: process_work
SELECT a.account, a.used_turns AS turns, a.used_input_tokens + a.used_written_tokens AS input_tokens,
    a.used_output_tokens AS output_tokens, a.limit_turns - a.used_turns AS turns_left,
    a.limit_tokens - a.used_input_tokens - a.used_cached_tokens - a.used_written_tokens - a.used_output_tokens
        AS tokens_left,
    h.turns AS usual_turns, h.turn_units AS usual_turn_units
FROM account AS a
JOIN process AS p ON p.pid = a.account
LEFT JOIN size_hint AS h ON h.agent = coalesce(p.agent, '') AND h.model = p.model
WHERE a.account IN (SELECT value FROM json_each(:pids));

-- name: process_note
UPDATE process SET wasted_tokens = wasted_tokens + :wasted_tokens, preempted = preempted + :preempted WHERE pid = :pid;

-- name: share_list
SELECT * FROM share WHERE name IN (SELECT value FROM json_each(:names));

-- name: share_put
INSERT INTO share (name, served, floor) VALUES (:name, :served, :floor)
ON CONFLICT (name) DO UPDATE SET served = max(served, :served), floor = max(floor, :floor);

-- name: share_charge
UPDATE share SET served = served + :served
WHERE name IN (
    SELECT program FROM process WHERE pid = :pid UNION ALL SELECT 'owner/' || owner FROM process WHERE pid = :pid
);

-- name: hint_get
SELECT * FROM size_hint WHERE agent = :agent AND model = :model;

-- name: hint_put
INSERT INTO size_hint (agent, model, turns, turn_units, runs) VALUES (:agent, :model, :turns, :turn_units, :runs)
ON CONFLICT (agent, model) DO UPDATE SET turns = :turns, turn_units = :turn_units, runs = :runs;

-- name: pick_insert
INSERT INTO pick (pid, since, at, why) VALUES (:pid, :since, :at, :why);

-- name: pick_list
SELECT * FROM pick WHERE :pids IS NULL OR pid IN (SELECT value FROM json_each(:pids))
ORDER BY serial DESC LIMIT :limit;

-- name: pick_prune
DELETE FROM pick WHERE serial <= (SELECT max(serial) FROM pick) - :keep;

-- name: dependency_insert
INSERT INTO dependency (pid, target) VALUES (:pid, :target);

-- name: dependency_targets
SELECT process.* FROM dependency JOIN process ON process.pid = dependency.target
WHERE dependency.pid = :pid ORDER BY dependency.serial;

-- name: dependency_of
SELECT pid FROM dependency WHERE target = :target ORDER BY serial;

-- name: dependency_take
DELETE FROM dependency WHERE pid = :pid;

-- name: dependency_waiting
SELECT d.pid, p.priority, d.target FROM dependency AS d JOIN process AS p ON p.pid = d.pid
WHERE p.state = 'blocked' ORDER BY d.serial;

-- name: schedule_insert
INSERT INTO schedule (
    schedule_id, owner, name, form, zone, spawn, missed, paused, next_at, last_at, last_pid, last_outcome, runs,
    created_at
) VALUES (
    :schedule_id, :owner, :name, :form, :zone, :spawn, :missed, :paused, :next_at, :last_at, :last_pid, :last_outcome,
    :runs, :created_at
);

-- name: schedule_put
UPDATE schedule SET
    form = :form, zone = :zone, spawn = :spawn, missed = :missed, paused = :paused, next_at = :next_at,
    last_at = :last_at, last_pid = :last_pid, last_outcome = :last_outcome, runs = :runs
WHERE schedule_id = :schedule_id;

-- name: schedule_find
SELECT * FROM schedule WHERE owner = :owner AND (schedule_id = :handle OR name = :handle);

-- name: schedule_list
SELECT * FROM schedule WHERE :owner IS NULL OR owner = :owner ORDER BY created_at, schedule_id;

-- name: schedule_drop
DELETE FROM schedule WHERE schedule_id = :schedule_id;
