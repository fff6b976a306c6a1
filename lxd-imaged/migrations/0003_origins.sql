-- Where copied images come from, how following it goes, and which versions replaced which.
-- An image that a person brought in as a file has no row here until it takes part in a lineage.

CREATE TABLE origins (
    fingerprint   TEXT   NOT NULL PRIMARY KEY REFERENCES images (fingerprint) ON DELETE CASCADE,
    -- Project at the server; the rest of the address is in images.source.
    project       TEXT   NOT NULL,
    -- As the origin gave them: what differs in images.properties was edited by a person.
    properties    TEXT   NOT NULL,
    -- All versions of one image share it.
    lineage       TEXT   NOT NULL,
    -- When another version took the aliases; 0 for a current image.
    replaced_at   BIGINT NOT NULL,
    -- The version it was rolled back from, which is not taken again by itself; may be empty.
    skipped       TEXT   NOT NULL,
    -- When the origin was last asked, and will be asked again; 0 for never.
    checked_at    BIGINT NOT NULL,
    next_check_at BIGINT NOT NULL,
    -- Why the last check failed; empty when it did not.
    error         TEXT   NOT NULL
);

CREATE INDEX origins_by_lineage ON origins (lineage);
