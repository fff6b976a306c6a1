//! `image list`: images as rows.

use clap::Args;
use jiff::Timestamp;
use lxd_proto::image::Image;
use serde::Serialize;

use crate::command::flags::ListFormat;
use crate::command::image::filter::Filters;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{Table, in_mebibytes, note, print_list, sort_rows};
use crate::suggest::did_you_mean;

/// The columns of `lxc image list`.
const DEFAULT_COLUMNS: &str = "lfpdatsu";

/// List images.
#[derive(Debug, Args)]
#[command(after_help = "\
A filter without \"=\" is part of an alias or of a fingerprint. KEY=VALUE looks at a field (such
as type, architecture, public, cached, size) or else at a property, whose key may be abbreviated;
VALUE is a regular expression for the whole value. All filters must match.

Columns, as letters or as names with commas between:
  l alias         shortest alias, and how many more     f fingerprint   its first 12 digits
  L aliases       all of them                           F full          all 64 digits
  p public        yes or no                             d description   the property
  a architecture                                        t type
  s size          in MiB, which lxc writes MB           b bytes         size in bytes
  u uploaded      date for people                       U uploaded_at   date as RFC 3339
  e expires_at    date as RFC 3339                      n filename      as uploaded
  v verified      whether the archive is sound: yes, pending, or no with the reason

Examples:
  lxd-cli image list
  lxd-cli image list debian public=true
  lxd-cli image list -c fingerprint,bytes -f csv,header
  lxd-cli image list local: images: os=debian")]
pub(crate) struct List {
    /// Remotes ("NAME:") and filters
    #[arg(value_name = "REMOTE: | FILTER")]
    pub(crate) filters: Vec<String>,
    /// Which columns
    #[arg(short, long, default_value = DEFAULT_COLUMNS)]
    pub(crate) columns: String,
    /// Plain values for scripts: sizes in bytes, dates as RFC 3339, all aliases
    #[arg(long)]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) format: ListFormat,
}

/// An image, and where it was found when several remotes were asked.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    image: Image,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote: Option<String>,
}

impl List {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let columns = Column::parse_all(&self.columns, self.raw)?;
        let (remotes, filters) = self.words(context)?;
        let filters = Filters::parse(&filters)?;
        let mut images = Vec::new();
        for name in &remotes {
            let found = context.remotes.images(name).await?;
            images.extend(found.into_iter().map(|image| (name.clone(), image)));
        }
        for doubt in filters.doubts(images.iter().map(|(_, image)| image)) {
            note(&doubt);
        }
        images.retain(|(_, image)| filters.matches(image));
        let several = remotes.len() > 1;
        let mut table = table(&columns, &images, several);
        sort_rows(&mut table.rows);
        let objects: Vec<Row> = images
            .into_iter()
            .map(|(remote, image)| Row { image, remote: several.then_some(remote) })
            .collect();
        print_list(self.format.format, &table, &objects)
    }

    /// The remotes to ask, and the filters.
    fn words(&self, context: &Context) -> Outcome<(Vec<String>, Vec<String>)> {
        let mut remotes = Vec::new();
        let mut filters = Vec::new();
        for (index, word) in self.filters.iter().enumerate() {
            if let Some(remote) = bare_remote(context, word) {
                let remote = remote?;
                if !remotes.contains(&remote) {
                    remotes.push(remote);
                }
            } else if index == 0 && is_remote_with_filter(word) {
                let reference = context.remotes.parse(word)?;
                remotes.push(reference.remote);
                filters.push(reference.name);
            } else {
                filters.push(word.clone());
            }
        }
        if remotes.is_empty() {
            remotes.push(context.remotes.config.default_remote.clone());
        }
        Ok((remotes, filters))
    }
}

/// `REMOTE:`; a colon at the end of a value is no remote's.
fn bare_remote(context: &Context, word: &str) -> Option<Outcome<String>> {
    if word.contains('=') { None } else { context.remotes.parse_bare(word) }
}

/// `REMOTE:FILTER`; a colon after an equals sign belongs to a value.
fn is_remote_with_filter(word: &str) -> bool {
    match (word.find(':'), word.find('=')) {
        (Some(colon), Some(equals)) => colon < equals,
        (colon, _) => colon.is_some(),
    }
}

/// Everything a column can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Alias,
    Aliases,
    Fingerprint,
    Full,
    Public,
    Description,
    Architecture,
    Type,
    Size,
    Bytes,
    Uploaded,
    UploadedAt,
    ExpiresAt,
    Filename,
    Verified,
}

/// Letter, name and column.
const COLUMNS: &[(char, &str, Column)] = &[
    ('l', "alias", Column::Alias),
    ('L', "aliases", Column::Aliases),
    ('f', "fingerprint", Column::Fingerprint),
    ('F', "full", Column::Full),
    ('p', "public", Column::Public),
    ('d', "description", Column::Description),
    ('a', "architecture", Column::Architecture),
    ('t', "type", Column::Type),
    ('s', "size", Column::Size),
    ('b', "bytes", Column::Bytes),
    ('u', "uploaded", Column::Uploaded),
    ('U', "uploaded_at", Column::UploadedAt),
    ('e', "expires_at", Column::ExpiresAt),
    ('n', "filename", Column::Filename),
    ('v', "verified", Column::Verified),
];

impl Column {
    fn parse_all(text: &str, raw: bool) -> Outcome<Vec<Self>> {
        let named = |word: &str| COLUMNS.iter().find(|(_, name, _)| *name == word);
        // Letters may have commas between them too, but not beside names.
        let names = text.split(',').any(|word| named(word.trim()).is_some());
        let mut columns = Vec::new();
        for word in text.split(',').map(str::trim) {
            if word.is_empty() {
                return Err(Failure::usage(format!(
                    "Empty column entry (redundant, leading or trailing comma) in '{text}'"
                )));
            }
            if let Some((_, _, column)) = named(word) {
                columns.push(*column);
                continue;
            }
            let hint = || did_you_mean(word, COLUMNS.iter().map(|(_, name, _)| *name));
            if names && word.chars().count() > 1 {
                let error = format!("Unknown column \"{word}\" in '{text}'");
                return Err(Failure::usage(error).maybe_hint(hint()));
            }
            for letter in word.chars() {
                let found = COLUMNS.iter().find(|(known, _, _)| *known == letter);
                columns.push(found.map(|(_, _, column)| *column).ok_or_else(|| {
                    Failure::usage(format!("Unknown column shorthand char '{letter}' in '{text}'"))
                        .maybe_hint(hint())
                })?);
            }
        }
        if raw {
            columns.iter_mut().for_each(|column| *column = column.raw());
        }
        Ok(columns)
    }

    /// The column that shows the same for scripts.
    const fn raw(self) -> Self {
        match self {
            Self::Alias => Self::Aliases,
            Self::Fingerprint => Self::Full,
            Self::Size => Self::Bytes,
            Self::Uploaded => Self::UploadedAt,
            other => other,
        }
    }

    const fn header(self) -> &'static str {
        match self {
            Self::Alias => "ALIAS",
            Self::Aliases => "ALIASES",
            Self::Fingerprint | Self::Full => "FINGERPRINT",
            Self::Public => "PUBLIC",
            Self::Description => "DESCRIPTION",
            Self::Architecture => "ARCHITECTURE",
            Self::Type => "TYPE",
            Self::Size => "SIZE",
            Self::Bytes => "BYTES",
            Self::Uploaded => "UPLOAD DATE",
            Self::UploadedAt => "UPLOADED AT",
            Self::ExpiresAt => "EXPIRES AT",
            Self::Filename => "FILENAME",
            Self::Verified => "VERIFIED",
        }
    }

    fn cell(self, image: &Image) -> String {
        match self {
            Self::Alias => alias_cell(image),
            Self::Aliases => {
                let mut names: Vec<_> = image.aliases.iter().map(|a| a.name.as_str()).collect();
                names.sort_unstable();
                names.join("\n")
            }
            Self::Fingerprint => image.fingerprint.short(),
            Self::Full => image.fingerprint.to_string(),
            Self::Public => yes_no(image.public).to_owned(),
            Self::Description => image.properties.get("description").cloned().unwrap_or_default(),
            Self::Architecture => image.architecture.to_string(),
            Self::Type => image.kind.as_str().to_uppercase(),
            Self::Size => format!("{:.2}MB", in_mebibytes(image.size)),
            Self::Bytes => image.size.to_string(),
            Self::Uploaded => for_people(image.uploaded_at),
            Self::UploadedAt => image.uploaded_at.to_string(),
            Self::ExpiresAt if lxd_proto::time::is_unset(image.expires_at) => String::new(),
            Self::ExpiresAt => image.expires_at.to_string(),
            Self::Filename => image.filename.clone(),
            Self::Verified => image.verified.to_string(),
        }
    }
}

/// `yes` or `no`.
pub(crate) const fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// The first of the shortest names, and how many more there are.
fn alias_cell(image: &Image) -> String {
    let shortest = image.aliases.iter().min_by_key(|alias| alias.name.len());
    match (shortest, image.aliases.len()) {
        (None, _) => String::new(),
        (Some(alias), 1) => alias.name.clone(),
        (Some(alias), count) => format!("{} ({} more)", alias.name, count - 1),
    }
}

/// `Nov 24, 2026 at 1:53am (UTC)`.
pub(crate) fn for_people(time: Timestamp) -> String {
    time.strftime("%b %-d, %Y at %-I:%M%P (UTC)").to_string()
}

fn table(columns: &[Column], images: &[(String, Image)], several: bool) -> Table {
    let mut headers: Vec<_> = columns.iter().map(|column| column.header()).collect();
    if several {
        headers.insert(0, "REMOTE");
    }
    let mut table = Table::new(&headers);
    for (remote, image) in images {
        let cells = columns.iter().map(|column| column.cell(image));
        table.rows.push(several.then(|| remote.clone()).into_iter().chain(cells).collect());
    }
    table
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An image as a recorded server shows it.
    pub(crate) fn sample() -> Image {
        serde_json::from_str(
            r#"{"auto_update":false,"properties":{"description":"BusyBox x86_64","os":"busybox","release":"1"},
            "public":false,"expires_at":"1970-01-01T00:00:00Z","profiles":["default"],
            "aliases":[{"name":"busybox","description":""},{"name":"bb/1","description":"x"}],
            "architecture":"x86_64","cached":false,"filename":"bb.tar.xz",
            "fingerprint":"a65894de6c07f624ba0f5081f52986186dadd9ea069692e7b5b0335fd8a96d31","size":878472,
            "type":"container","created_at":"2016-03-15T11:10:00Z","last_used_at":"0001-01-01T00:00:00Z",
            "uploaded_at":"2026-11-24T01:53:32.939117893Z"}"#,
        )
        .unwrap()
    }

    #[test]
    fn cells_are_those_of_lxc() {
        let columns = Column::parse_all("lfFLpdatsu", false).unwrap();
        let table = table(&columns, &[("local".into(), sample())], false);
        assert_eq!(
            table.csv(false),
            "bb/1 (1 more),a65894de6c07,a65894de6c07f624ba0f5081f52986186dadd9ea069692e7b5b0335fd8a96d31,\"bb/1\nbusybox\",no,BusyBox x86_64,x86_64,CONTAINER,0.84MB,\"Nov 24, 2026 at 1:53am (UTC)\"\n"
        );
    }

    #[test]
    fn columns_have_letters_and_names() {
        use Column::{Alias, Aliases, Bytes, Fingerprint, Full, Size};
        assert_eq!(Column::parse_all("l,f", false).unwrap(), [Alias, Fingerprint]);
        assert_eq!(Column::parse_all("lf,s", false).unwrap(), [Alias, Fingerprint, Size]);
        assert_eq!(Column::parse_all("alias,bytes", false).unwrap(), [Alias, Bytes]);
        assert_eq!(Column::parse_all("lfs", true).unwrap(), [Aliases, Full, Bytes]);
        let error = Column::parse_all("lz", false).unwrap_err();
        assert_eq!(error.error, "Unknown column shorthand char 'z' in 'lz'");
        assert!(Column::parse_all("l,,f", false).is_err());
        assert_eq!(Column::parse_all("alias, l,fingerprint", false).unwrap().len(), 3);
        let error = Column::parse_all("alias,nope", false).unwrap_err();
        assert_eq!(error.error, "Unknown column \"nope\" in 'alias,nope'");
        let error = Column::parse_all("fingrprint", false).unwrap_err();
        assert_eq!(error.hints, ["Did you mean \"fingerprint\"?"]);
    }

    #[test]
    fn a_colon_in_a_value_is_no_remote() {
        assert!(is_remote_with_filter("local:bus"));
        assert!(is_remote_with_filter("s2:os=x"));
        assert!(!is_remote_with_filter("serial=20240101_07:42"));
        assert!(!is_remote_with_filter("busybox"));
    }
}
