//! `/1.0/instances/NAME/files`, and what an instance has written on its console and in its logs.

use axum::Extension;
use axum::body::Body;
use axum::extract::{OriginalUri, Path, State};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use http::{HeaderMap, StatusCode, header};
use lxd_proto::instance::InstanceName;
use lxd_proto::instance::file::{FileHeaders, FileKind, FileWrite, header as file};
use lxd_proto::routes::{self, header::PREFIXES, query};
use tokio_util::io::ReaderStream;

use super::Daemon;
use super::extract::{self, Query};
use super::reply::{self, Reply};
use crate::app::Caller;
use crate::disks::Owner;
use crate::error::{Error, INSTANCE_NOT_FOUND, Result};
use crate::service::instances::{self, File, Kind, Written, WrittenKind};

/// Bytes of one piece of a file.
const PIECE: usize = 256 << 10;

fn named(text: &str) -> Result<InstanceName> {
    text.parse().map_err(|_| INSTANCE_NOT_FOUND)
}

pub(super) async fn get(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    OriginalUri(uri): OriginalUri,
) -> Response {
    let read = async {
        let name = named(&name)?;
        let query = Query::of(&uri);
        let path = query.get(query::PATH).unwrap_or_default();
        instances::read(&app, &caller, &name, path).await
    };
    match read.await {
        Ok(file) => described(file),
        Err(error) => Reply::from(error).into_response(),
    }
}

fn described(found: File) -> Response {
    let File { uid, gid, mode, modified, kind } = found;
    let (kind, mut response) = match kind {
        Kind::Directory(names) => ("directory", Reply::json(&names).into_response()),
        Kind::Symlink(target) => {
            ("symlink", bytes(Body::from(target.clone()), target.len() as u64))
        }
        Kind::File(file, size) => {
            let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(file), PIECE);
            // A file that grows meanwhile is cut: its length is said first.
            let mut left = size;
            let stream = stream.map(move |piece| {
                piece.map(|mut piece| {
                    piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                    left -= piece.len() as u64;
                    piece
                })
            });
            ("file", bytes(Body::from_stream(stream), size))
        }
    };
    for (name, value) in [
        (file::UID, uid.to_string()),
        (file::GID, gid.to_string()),
        (file::MODE, format!("{mode:04o}")),
        (file::MODIFIED, modified.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()),
        (file::TYPE, kind.to_owned()),
    ] {
        if let Ok(name) = format!("x-lxd-{name}").parse() {
            reply::set(&mut response, name, &value);
        }
    }
    response
}

fn bytes(body: Body, length: u64) -> Response {
    let mut response = Response::new(body);
    reply::set(&mut response, header::CONTENT_TYPE, "application/octet-stream");
    reply::set(&mut response, header::CONTENT_LENGTH, &length.to_string());
    response
}

pub(super) async fn post(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    let done = async {
        let name = named(&name)?;
        let query = Query::of(&uri);
        let path = query.get(query::PATH).unwrap_or_default();
        let written = written(&headers)?;
        let body = body.into_data_stream();
        let body = stream::unfold(body, async |mut body| {
            let piece = match extract::in_time(body.next()).await {
                Ok(piece) => piece?.map_err(|error| Error::Upload(error.to_string())),
                Err(error) => Err(error),
            };
            Some((piece, body))
        });
        let body = std::pin::pin!(body);
        instances::write(&app, &caller, &name, path, written, body).await
    };
    done.await.into()
}

/// What the headers say about a file.
fn written(headers: &HeaderMap) -> Result<Written> {
    let said = FileHeaders::read(|name| {
        let value = PREFIXES.iter().find_map(|prefix| headers.get(format!("{prefix}{name}")));
        value.and_then(|value| value.to_str().ok())
    });
    let said = said.map_err(|error| Error::BadRequest(error.to_string()))?;
    let kind = match said.kind {
        FileKind::File => WrittenKind::File { append: said.write == FileWrite::Append },
        FileKind::Symlink => WrittenKind::Symlink,
        FileKind::Directory => WrittenKind::Directory,
    };
    let (uid, gid) = (said.uid.unwrap_or_default(), said.gid.unwrap_or_default());
    Ok(Written { uid, gid, mode: said.mode, kind })
}

pub(super) async fn delete(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    let done = async {
        let name = named(&name)?;
        let query = Query::of(&uri);
        let path = query.get(query::PATH).unwrap_or_default();
        instances::remove(&app, &caller, &name, path).await
    };
    done.await.into()
}

/// What the instance has written on its console.
pub(super) async fn console(State(app): Daemon, Path(name): Path<String>) -> Response {
    let read = async { instances::console(&app, &named(&name)?).await };
    match read.await {
        Ok(log) => {
            let length = log.len() as u64;
            bytes(Body::from(log), length)
        }
        Err(error) => Reply::from(error).into_response(),
    }
}

/// Empties the console log.
pub(super) async fn clear_console(State(app): Daemon, Path(name): Path<String>) -> Reply {
    let cleared = async { instances::clear_console(&app, &named(&name)?).await };
    cleared.await.into()
}

/// The names of the log files.
pub(super) async fn logs(State(app): Daemon, Path(name): Path<String>) -> Reply {
    let listed = || {
        let name = named(&name)?;
        app.catalog.instances.get(&name)?;
        let home = app.disks.home(&Owner::Instance(name.clone()));
        let mut files = Vec::new();
        if home.join("lxc.log").exists() {
            files.push("lxc.log".to_owned());
        }
        if let Ok(entries) = std::fs::read_dir(home.join("logs")) {
            let names = entries.flatten().map(|it| it.file_name().to_string_lossy().into_owned());
            files.extend(names);
        }
        files.sort();
        let url = |file: &String| routes::INSTANCE_LOG.url(&[name.as_str(), file]);
        Ok::<_, Error>(files.iter().map(url).collect::<Vec<_>>())
    };
    match listed() {
        Ok(urls) => Reply::json(&urls),
        Err(error) => error.into(),
    }
}

/// One log file: the runtime's, or what a command has said.
pub(super) async fn log(
    State(app): Daemon,
    Path((name, file)): Path<(String, String)>,
) -> Response {
    let path = || {
        let name = named(&name)?;
        app.catalog.instances.get(&name)?;
        let home = app.disks.home(&Owner::Instance(name));
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        match file.as_str() {
            "lxc.log" => Ok(home.join("lxc.log")),
            exec if exec.starts_with("exec_") && exec.chars().all(known) => {
                Ok(home.join("logs").join(exec))
            }
            _ => Err(Error::NotFound("log file not found")),
        }
    };
    match path() {
        Ok(path) => own_file(&path).await,
        Err(error) => Reply::from(error).into_response(),
    }
}

/// A file of ours beside an instance; one that was never written is empty.
async fn own_file(path: &std::path::Path) -> Response {
    match tokio::fs::read(path).await {
        Ok(content) => {
            let length = content.len() as u64;
            bytes(Body::from(content), length)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut response = bytes(Body::empty(), 0);
            *response.status_mut() = StatusCode::OK;
            response
        }
        Err(error) => Reply::from(Error::io("cannot read the log", error)).into_response(),
    }
}
