-- name: audit_stage
INSERT INTO audit_stage (at, category, actor, pid, call, outcome, subject, detail, payload)
VALUES (:at, :category, :actor, :pid, :call, :outcome, :subject, :detail, :payload);

-- name: audit_staged
SELECT * FROM audit_stage ORDER BY stage LIMIT :limit;

-- name: audit_unstage
DELETE FROM audit_stage WHERE stage <= :through;

-- name: audit_append
INSERT INTO audit_record (
    seq, previous, digest, at, category, actor, pid, call, outcome, subject, detail, payload
) VALUES (
    :seq, :previous, :digest, :at, :category, :actor, :pid, :call, :outcome, :subject, :detail, :payload
);

-- name: audit_head_put
INSERT INTO audit_head (seq, digest, at, key_id, signature, root)
VALUES (:seq, :digest, :at, :key_id, :signature, :root)
ON CONFLICT (seq) DO UPDATE SET
    digest = excluded.digest, at = excluded.at, key_id = excluded.key_id, signature = excluded.signature,
    root = excluded.root;

-- name: audit_last
SELECT * FROM audit_record ORDER BY seq DESC LIMIT 1;

-- name: audit_head
SELECT * FROM audit_head ORDER BY seq DESC LIMIT 1;

-- name: audit_list
SELECT * FROM audit_record WHERE seq > :after ORDER BY seq LIMIT :limit;

-- name: audit_list_by_pid
SELECT * FROM audit_record WHERE pid = :pid AND pid <> '' AND seq > :after ORDER BY seq LIMIT :limit;

-- name: audit_tail
SELECT * FROM audit_record ORDER BY seq DESC LIMIT :limit;

-- name: audit_tail_by_pid
SELECT * FROM audit_record WHERE pid = :pid AND pid <> '' ORDER BY seq DESC LIMIT :limit;
