//! Products and versions: what an image is one of, told by its properties.

use crate::image::{Image, InstanceType};

/// Bytes of an architecture, system, … that count in the name of a product.
const MAX_PART: usize = 100;

/// The variant of an image; `default` where it names none.
pub(super) fn variant(image: &Image) -> &str {
    let named = image.properties.get("variant").map(String::as_str);
    named.filter(|name| !name.is_empty()).unwrap_or("default")
}

/// The product that an image is a version of: `os:release:architecture:variant:type[:ftype]`.
pub fn product(image: &Image) -> String {
    let property = |key| image.properties.get(key).map_or("", String::as_str);
    let kind = match image.kind {
        InstanceType::Container => "container",
        InstanceType::VirtualMachine => "virtual-machine",
    };
    let parts = [
        property("os"),
        property("release"),
        image.architecture.as_str(),
        variant(image),
        kind,
        property("type"),
    ];
    let part = |text: &str| -> String {
        let plain = |c: char| if c.is_control() || c == ':' { '_' } else { c };
        text.chars().take(MAX_PART).map(plain).collect()
    };
    parts.map(part).join(":").trim_end_matches(':').to_owned()
}

/// The version that an image is of its product: its `serial` when that begins with a date, else
/// when it was made, so that texts sort as times do.
pub fn serial(image: &Image) -> String {
    let named = image.properties.get("serial").map_or("", String::as_str);
    let date = named.get(..8).is_some_and(|date| date.bytes().all(|b| b.is_ascii_digit()));
    if date && named.len() <= MAX_PART && !named.contains(char::is_control) {
        return named.to_owned();
    }
    image.created_at.strftime("%Y%m%d_%H%M%S").to_string()
}
