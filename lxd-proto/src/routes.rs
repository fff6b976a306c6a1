//! Every path, header and query key of the protocol, once.
//!
//! The daemon mounts [`Route::template`], the client asks for [`Route::url`].

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// A path, with `{name}` where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route(&'static str);

/// What stays as it is inside a path segment.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

impl Route {
    /// The path with its placeholders, for a router.
    pub const fn template(self) -> &'static str {
        self.0
    }

    /// The older spelling of an instance's path, with `containers`, for a router; `None` for what
    /// is no such path.
    pub fn older(self) -> Option<String> {
        let rest = self.0.strip_prefix(INSTANCES.0)?;
        Some(format!("/1.0/containers{rest}"))
    }

    /// The path with `values` in place of the placeholders, percent-encoded, a slash included.
    pub fn url(self, values: &[&str]) -> String {
        fill(self.0, values)
    }

    /// [`Route::url`] in the older spelling.
    pub fn older_url(self, values: &[&str]) -> Option<String> {
        self.older().map(|template| fill(&template, values))
    }
}

fn fill(template: &str, values: &[&str]) -> String {
    let mut url = String::new();
    let mut values = values.iter();
    for (index, segment) in template.split('/').enumerate() {
        if index > 0 {
            url.push('/');
        }
        match segment.starts_with('{').then(|| values.next()).flatten() {
            Some(value) => url.extend(utf8_percent_encode(value, SEGMENT)),
            None => url.push_str(segment),
        }
    }
    url
}

/// `GET`: the list of API versions.
pub const ROOT: Route = Route("/");
/// The only API version.
pub const API: Route = Route("/1.0");
/// Images: list, create.
pub const IMAGES: Route = Route("/1.0/images");
/// One image, by the beginning of its fingerprint.
pub const IMAGE: Route = Route("/1.0/images/{fingerprint}");
/// The files of an image.
pub const IMAGE_EXPORT: Route = Route("/1.0/images/{fingerprint}/export");
/// Update an image from its source.
pub const IMAGE_REFRESH: Route = Route("/1.0/images/{fingerprint}/refresh");
/// A one-time secret for a private image.
pub const IMAGE_SECRET: Route = Route("/1.0/images/{fingerprint}/secret");
/// Of ours: the versions of an image, newest first.
pub const IMAGE_HISTORY: Route = Route("/1.0/images/{fingerprint}/history");
/// Of ours: the version before takes the aliases back.
pub const IMAGE_ROLLBACK: Route = Route("/1.0/images/{fingerprint}/rollback");
/// Aliases: list, create.
pub const ALIASES: Route = Route("/1.0/images/aliases");
/// One alias; its name may hold slashes, encoded or not.
pub const ALIAS: Route = Route("/1.0/images/aliases/{name}");
/// Operations by status.
pub const OPERATIONS: Route = Route("/1.0/operations");
/// One operation: look, cancel.
pub const OPERATION: Route = Route("/1.0/operations/{id}");
/// Waits for the end of an operation.
pub const OPERATION_WAIT: Route = Route("/1.0/operations/{id}/wait");
/// Websocket of an operation.
pub const OPERATION_WEBSOCKET: Route = Route("/1.0/operations/{id}/websocket");
/// Websocket of events.
pub const EVENTS: Route = Route("/1.0/events");
/// Projects.
pub const PROJECTS: Route = Route("/1.0/projects");
/// One project.
pub const PROJECT: Route = Route("/1.0/projects/{name}");
/// Profiles.
pub const PROFILES: Route = Route("/1.0/profiles");
/// One profile.
pub const PROFILE: Route = Route("/1.0/profiles/{name}");
/// Storage pools.
pub const STORAGE_POOLS: Route = Route("/1.0/storage-pools");
/// One storage pool.
pub const STORAGE_POOL: Route = Route("/1.0/storage-pools/{name}");
/// Instances: list, create.
pub const INSTANCES: Route = Route("/1.0/instances");
/// One instance: look, edit, rename, delete.
pub const INSTANCE: Route = Route("/1.0/instances/{name}");
/// Whether an instance runs: look, change.
pub const INSTANCE_STATE: Route = Route("/1.0/instances/{name}/state");
/// Runs a command in an instance.
pub const INSTANCE_EXEC: Route = Route("/1.0/instances/{name}/exec");
/// Snapshots of an instance: list, create.
pub const INSTANCE_SNAPSHOTS: Route = Route("/1.0/instances/{name}/snapshots");
/// One snapshot: look, edit, rename, delete.
pub const INSTANCE_SNAPSHOT: Route = Route("/1.0/instances/{name}/snapshots/{snapshot}");
/// One file of an instance, named by [`query::PATH`]: read, write, delete.
pub const INSTANCE_FILES: Route = Route("/1.0/instances/{name}/files");
/// Console of an instance: its log, or (POST) a connection to it.
pub const INSTANCE_CONSOLE: Route = Route("/1.0/instances/{name}/console");
/// The `metadata.yaml` of an instance, as JSON.
pub const INSTANCE_METADATA: Route = Route("/1.0/instances/{name}/metadata");
/// The templates of an instance; one of them by [`query::PATH`].
pub const INSTANCE_TEMPLATES: Route = Route("/1.0/instances/{name}/metadata/templates");
/// Names of the log files of an instance.
pub const INSTANCE_LOGS: Route = Route("/1.0/instances/{name}/logs");
/// One log file of an instance.
pub const INSTANCE_LOG: Route = Route("/1.0/instances/{name}/logs/{file}");
/// Trusted certificates.
pub const CERTIFICATES: Route = Route("/1.0/certificates");
/// One trusted certificate, by the beginning of its fingerprint.
pub const CERTIFICATE: Route = Route("/1.0/certificates/{fingerprint}");
/// Of ours: mirrors: list, create.
pub const MIRRORS: Route = Route("/1.0/mirrors");
/// Of ours: one mirror: look, edit, delete.
pub const MIRROR: Route = Route("/1.0/mirrors/{name}");
/// Of ours: runs a mirror.
pub const MIRROR_RUN: Route = Route("/1.0/mirrors/{name}/run");
/// Of ours: what a bundle of a mirror holds.
pub const MIRROR_MANIFEST: Route = Route("/1.0/mirrors/{name}/manifest");
/// Of ours: the images of a bundle have been sent.
pub const MIRROR_IMPORT: Route = Route("/1.0/mirrors/{name}/import");
/// Of ours: ends the daemon; only over the unix socket. LXD has it under the same path.
pub const SHUTDOWN: Route = Route("/internal/shutdown");
/// Of ours: answers when the store is loaded. LXD has it under the same path.
pub const READY: Route = Route("/internal/ready");

/// Simplestreams: which catalogs there are. Public images, whoever asks.
pub const STREAMS_INDEX: Route = Route("/streams/v1/index.json");
/// Simplestreams: the catalog of all images.
pub const STREAMS_CATALOG: Route = Route("/streams/v1/images.json");
/// Simplestreams: the index that names the signed catalog, signed.
pub const STREAMS_SIGNED_INDEX: Route = Route("/streams/v1/index.sjson");
/// Simplestreams: the catalog, signed.
pub const STREAMS_SIGNED_CATALOG: Route = Route("/streams/v1/images.sjson");
/// Simplestreams: a file of an image, by the SHA-256 of its bytes; the name tells what it is.
pub const STREAMS_FILE: Route = Route("/images/{sha256}/{name}");
/// Of ours: a public image by its alias, whose slashes are not encoded, as a page with the headers
/// of [`direct`].
pub const DIRECT: Route = Route("/lxd/{alias}");

/// Headers of an image behind a URL.
pub mod direct {
    /// Answer: where the image's one file is.
    pub const URL: &str = "LXD-Image-URL";
    /// Answer: what the file hashes to.
    pub const HASH: &str = "LXD-Image-Hash";
    /// Question: what the server that asks can run, separated by commas.
    pub const ARCHITECTURES: &str = "LXD-Server-Architectures";
    /// Question: its version.
    pub const VERSION: &str = "LXD-Server-Version";
    /// Incus' names of the two answers.
    pub const INCUS_URL: &str = "Incus-Image-URL";
    /// See [`INCUS_URL`].
    pub const INCUS_HASH: &str = "Incus-Image-Hash";
    /// Incus' names of the two questions.
    pub const INCUS_ARCHITECTURES: &str = "Incus-Server-Architectures";
    /// See [`INCUS_ARCHITECTURES`].
    pub const INCUS_VERSION: &str = "Incus-Server-Version";
}

/// Request headers of an image upload. Incus sends the same with `X-Incus-` in front.
pub mod header {
    /// The two prefixes a client may use, lower case.
    pub const PREFIXES: [&str; 2] = ["x-lxd-", "x-incus-"];
    /// `true`, `1`, `yes`, `on`: the image is public.
    pub const PUBLIC: &str = "public";
    /// The file name to record.
    pub const FILENAME: &str = "filename";
    /// Query-encoded properties; they win over the image's own.
    pub const PROPERTIES: &str = "properties";
    /// `profile=a&profile=b`.
    pub const PROFILES: &str = "profiles";
    /// The fingerprint the upload must have.
    pub const FINGERPRINT: &str = "fingerprint";
    /// Secret of a push token.
    pub const SECRET: &str = "secret";
    /// `alias=a&alias=b`: names set together with the image.
    pub const ALIASES: &str = "aliases";
    /// Of ours: the aliases may be taken from other images.
    pub const ALIAS_REUSE: &str = "alias-reuse";
    /// Of ours: answer only after the deep check, also for xz.
    pub const VERIFY: &str = "verify";
    /// Of ours: the image is one of this mirror's, and its properties are all that it has.
    pub const MIRROR: &str = "mirror";
    /// Of ours: when an image of a mirror was made, instead of what its metadata says.
    pub const CREATED_AT: &str = "created-at";
    /// Of ours: when it expires.
    pub const EXPIRES_AT: &str = "expires-at";
}

/// Query keys.
pub mod query {
    /// Objects instead of paths when it is a non-zero number.
    pub const RECURSION: &str = "recursion";
    /// Filter expression; empty means none.
    pub const FILTER: &str = "filter";
    /// Project; only `default` exists.
    pub const PROJECT: &str = "project";
    /// One-time secret.
    pub const SECRET: &str = "secret";
    /// Seconds to wait; -1 for ever.
    pub const TIMEOUT: &str = "timeout";
    /// Comma-separated event types.
    pub const TYPE: &str = "type";
    /// Events of all projects.
    pub const ALL_PROJECTS: &str = "all-projects";
    /// Absolute path inside an instance, or name of a template.
    pub const PATH: &str = "path";
    /// Of ours: at most so many images.
    pub const LIMIT: &str = "limit";
    /// Of ours: only images whose fingerprint sorts after this one.
    pub const AFTER: &str = "after";
    /// Of ours: a list shows replaced versions too when it is a non-zero number.
    pub const ALL_VERSIONS: &str = "all-versions";
    /// Of ours: the images of a mirror go with it when it is a non-zero number.
    pub const IMAGES: &str = "images";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_as_one_segment() {
        assert_eq!(ALIAS.url(&["ubuntu/22.04 lts"]), "/1.0/images/aliases/ubuntu%2F22.04%20lts");
        assert_eq!(IMAGE_EXPORT.url(&["ab"]), "/1.0/images/ab/export");
        assert_eq!(API.url(&[]), "/1.0");
    }

    #[test]
    fn instances_have_an_older_path() {
        assert_eq!(INSTANCES.older().unwrap(), "/1.0/containers");
        assert_eq!(INSTANCE_LOG.older().unwrap(), "/1.0/containers/{name}/logs/{file}");
        assert_eq!(INSTANCE_SNAPSHOT.url(&["c1", "a b"]), "/1.0/instances/c1/snapshots/a%20b");
        assert_eq!(IMAGES.older(), None);
    }
}
