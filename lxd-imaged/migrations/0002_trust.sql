-- Clients that are trusted over the network.
CREATE TABLE certificates (
    fingerprint TEXT   NOT NULL PRIMARY KEY,
    kind        TEXT   NOT NULL,
    name        TEXT   NOT NULL,
    restricted  BIGINT NOT NULL,
    -- A JSON list of names.
    projects    TEXT   NOT NULL,
    -- PEM.
    certificate TEXT   NOT NULL
);
