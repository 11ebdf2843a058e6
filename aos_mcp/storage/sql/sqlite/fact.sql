-- name: fact_get
SELECT value FROM fact WHERE name = :name;

-- name: fact_put
INSERT INTO fact (name, value) VALUES (:name, :value) ON CONFLICT (name) DO UPDATE SET value = excluded.value;
