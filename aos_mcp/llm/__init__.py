"""Language models: one catalogue, two wire dialects and recordings. Loads no SDK by itself."""
