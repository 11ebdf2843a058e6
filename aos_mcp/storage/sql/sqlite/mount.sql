-- name: pin_put
INSERT INTO pin (name, digest, definition, state, pinned_at, offered_digest, offered_definition)
VALUES (:name, :digest, :definition, :state, :pinned_at, :offered_digest, :offered_definition)
ON CONFLICT (name) DO UPDATE SET
    digest = excluded.digest, definition = excluded.definition, state = excluded.state, pinned_at = excluded.pinned_at,
    offered_digest = excluded.offered_digest, offered_definition = excluded.offered_definition;

-- name: pin_list
SELECT * FROM pin ORDER BY name;
