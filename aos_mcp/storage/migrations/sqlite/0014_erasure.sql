-- When the bytes of a payload were taken out for good; its digest stays, and with it every chain over it.
ALTER TABLE payload ADD COLUMN erased_at REAL;
