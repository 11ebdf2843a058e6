-- Of a model call: the payload with the system text and the tools that it was made with.
ALTER TABLE step ADD COLUMN basis TEXT;
