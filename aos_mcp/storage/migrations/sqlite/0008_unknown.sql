-- Steps of which nobody knows whether they happened; they are few, and shown with every list of agents.
CREATE INDEX step_unknown ON step (pid, number) WHERE state = 'unknown';
