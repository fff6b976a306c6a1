//! API extensions: what the daemon advertises, and what a client looks for.

/// Extensions that this version serves. Others are advertised when they work.
pub const SERVED: &[&str] = &[
    "etag",
    "patch",
    "storage",
    "image_create_aliases",
    "entity_description",
    "operation_description",
    "event_lifecycle",
    "projects",
    "image_types",
    "images_expiry",
    "virtual-machines",
    "image_profiles",
    "api_filtering",
    "event_project",
    PAGING,
    VERIFIED,
    ALIAS_REUSE,
];

/// Of ours: `limit` and `after` on `GET /1.0/images`.
pub const PAGING: &str = "imaged_paging";
/// Of ours: the `verified` key of an image whose deep check has not passed.
pub const VERIFIED: &str = "imaged_verified";
/// Of ours: an upload takes `X-LXD-aliases` and `X-LXD-alias-reuse`, so that image and aliases
/// become visible together.
pub const ALIAS_REUSE: &str = "imaged_upload_aliases";
