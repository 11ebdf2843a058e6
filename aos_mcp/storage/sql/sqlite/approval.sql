-- name: approval_insert
INSERT INTO approval (
    approval_id, owner, pid, call, tool, digest, question, state, asked_at, expires_at, answered_at, answered_by,
    remember, note
) VALUES (
    :approval_id, :owner, :pid, :call, :tool, :digest, :question, :state, :asked_at, :expires_at, :answered_at,
    :answered_by, :remember, :note
);

-- name: approval_get
SELECT * FROM approval WHERE approval_id = :approval_id;

-- name: approval_put
UPDATE approval SET
    owner = :owner, pid = :pid, call = :call, tool = :tool, digest = :digest, question = :question, state = :state,
    asked_at = :asked_at, expires_at = :expires_at, answered_at = :answered_at, answered_by = :answered_by,
    remember = :remember, note = :note
WHERE approval_id = :approval_id;

-- name: approval_by_digest
SELECT * FROM approval
WHERE owner = :owner AND digest = :digest AND state IN ('pending', 'allowed', 'denied')
ORDER BY asked_at DESC, serial DESC LIMIT 1;

-- name: approval_list
SELECT * FROM approval
WHERE state IN (SELECT value FROM json_each(:states)) AND (:owner IS NULL OR owner = :owner)
ORDER BY asked_at, serial LIMIT :limit;

-- name: grant_put
INSERT INTO decision (owner, agent, tool, decision, at) VALUES (:owner, :agent, :tool, :decision, :at)
ON CONFLICT (owner, agent, tool) DO UPDATE SET decision = excluded.decision, at = excluded.at;

-- name: grant_get
SELECT * FROM decision WHERE owner = :owner AND agent = :agent AND tool = :tool;
