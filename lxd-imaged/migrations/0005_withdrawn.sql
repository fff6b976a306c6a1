-- Files of public images that were deleted: who has read a catalog that lists them may still fetch
-- them for a while.

CREATE TABLE withdrawn (
    digest       TEXT   NOT NULL,
    -- What the catalog calls the file: it is served under no other name.
    name         TEXT   NOT NULL,
    size         BIGINT NOT NULL,
    withdrawn_at BIGINT NOT NULL,
    PRIMARY KEY (digest, name)
);
