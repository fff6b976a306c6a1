//! API extensions: what the daemon advertises, and what a client looks for.

/// Extensions that this version serves. Others are advertised when they work.
pub const SERVED: &[&str] = &[
    "https_allowed_credentials",
    "etag",
    "patch",
    "certificate_update",
    "storage",
    "image_create_aliases",
    "image_force_refresh",
    "entity_description",
    "operation_description",
    "event_lifecycle",
    "projects",
    "image_types",
    "images_expiry",
    "image_compression_algorithm",
    "instances",
    "container_full",
    "instance_get_full",
    "container_last_used_at",
    "container_exec_recording",
    "container_exec_signal_handling",
    "container_exec_user_group_cwd",
    "container_copy_project",
    "container_only_migration",
    "snapshot_expiry",
    "snapshot_expiry_creation",
    "directory_manipulation",
    "file_delete",
    "file_append",
    "file_symlinks",
    "console",
    "instance_create_start",
    "virtual-machines",
    "image_profiles",
    "api_filtering",
    "images_push_relay",
    "image_source_project",
    "images_target_project",
    "certificate_project",
    "event_project",
    "certificate_token",
    "remote_token_expiry",
    PAGING,
    VERSIONS,
    VERIFIED,
    ALIAS_REUSE,
    SOURCE_KEYRING,
];

/// Of ours: `limit` and `after` on `GET /1.0/images`.
pub const PAGING: &str = "imaged_paging";
/// Of ours: replaced versions of an image: `history`, `rollback`, `all-versions`, `refresh`.
pub const VERSIONS: &str = "imaged_versions";
/// Of ours: the `verified` key of an image whose deep check has not passed.
pub const VERIFIED: &str = "imaged_verified";
/// Of ours: an upload takes `X-LXD-aliases` and `X-LXD-alias-reuse`, so that image and aliases
/// become visible together.
pub const ALIAS_REUSE: &str = "imaged_upload_aliases";
/// Of ours: the source of an image or an instance takes a `keyring`, without which what the server
/// says is not believed; images go on to be asked for with it.
pub const SOURCE_KEYRING: &str = "imaged_source_keyring";
