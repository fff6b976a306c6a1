//! Documents as Go reads them.

use super::*;

fn product(text: &str) -> Result<Product, ParseError> {
    let catalog = Catalog::parse(format!(r#"{{"products":{{"p":{text}}}}}"#).as_bytes())?;
    Ok(catalog.products["p"].clone())
}

#[test]
fn names_in_any_case_are_one_field_and_the_last_one_wins() {
    for (text, arch) in [
        (r#"{"arch":"a"}"#, "a"),
        (r#"{"ARCH":"a"}"#, "a"),
        (r#"{"arch":"a","Arch":"b"}"#, "b"),
        (r#"{"Arch":"b","arch":"a"}"#, "a"),
        (r#"{"arch":"a","arch":"b"}"#, "b"),
        (r#"{"arch":"a","arch":null}"#, "a"),
        (r#"{"arch":null}"#, ""),
        (r#"{"arch ":"a"}"#, ""),
        ("{}", ""),
        ("null", ""),
    ] {
        assert_eq!(product(text).unwrap().arch, arch, "{text}");
    }
    assert_eq!(product("{\"o\u{17f}\":\"x\"}").unwrap().os, "x");
}

#[test]
fn maps_merge_and_null_empties_them() {
    let merged = br#"{"products":{"a":{"os":"1"},"b":{}},"Products":{"a":{"arch":"2"},"c":null}}"#;
    let catalog = Catalog::parse(merged).unwrap();
    let names: Vec<_> = catalog.products.keys().map(String::as_str).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(catalog.products["a"].os, "", "an entry is replaced as a whole");
    assert!(
        Catalog::parse(br#"{"products":{"a":{}},"products":null}"#).unwrap().products.is_empty()
    );

    let requirements = |text| product(text).unwrap().lxd_requirements;
    assert_eq!(requirements(r#"{"lxd_requirements":null}"#), None);
    assert_eq!(requirements(r#"{"lxd_requirements":{}}"#).unwrap().len(), 0);
    assert_eq!(requirements(r#"{"lxd_requirements":{"a":null}}"#).unwrap()["a"], "");
}

#[test]
fn a_wrong_type_breaks_the_document_and_an_unknown_field_never() {
    for text in [
        r#"{"aliases":["a"]}"#,
        r#"{"aliases":7}"#,
        r#"{"aliases":{}}"#,
        r#"{"supported":"yes"}"#,
        r#"{"supported":1}"#,
        r#"{"versions":[]}"#,
        r#"{"versions":"x"}"#,
        r#"{"lxd_requirements":{"a":1}}"#,
        r#"{"requirements":{"a":true}}"#,
        r#"{"versions":{"v":{"items":{"i":{"size":"10"}}}}}"#,
        r#"{"versions":{"v":{"items":{"i":{"size":10.0}}}}}"#,
        r#"{"versions":{"v":{"items":{"i":{"size":1e1}}}}}"#,
        r#"{"versions":{"v":{"items":{"i":{"size":9223372036854775808}}}}}"#,
        "[]",
        "7",
    ] {
        assert!(product(text).is_err(), "{text}");
    }
    for text in [
        r#"{"unknown":{"a":[1,1e400,"\ud800",null,{}]}}"#,
        r#"{"supported":null,"release_codename":"x"}"#,
        r#"{"versions":{"v":null,"w":{"items":{"i":{"size":-1,"md5":null}}}}}"#,
    ] {
        assert!(product(text).is_ok(), "{text}");
    }
}

#[test]
fn text_that_is_no_unicode_is_replaced() {
    assert_eq!(product(r#"{"os":"a\u00e9\n"}"#).unwrap().os, "aé\n");
    assert!(product(r#"{"os":"O\ud800s"}"#).unwrap().os.starts_with("O\u{fffd}"));
    let raw = b"{\"products\":{\"p\xff\":{\"os\":\"O\xff\",\"x\xff\":\"\xff\"}}}";
    assert_eq!(Catalog::parse(raw).unwrap().products["p\u{fffd}"].os, "O\u{fffd}");
}

#[test]
fn what_is_not_one_json_document_is_refused() {
    for text in
        ["", " ", "{", "{}x", "{} {}", "\u{feff}{}", r#"{"a":NaN}"#, "{'a':1}", "\"x\"", "[]"]
    {
        assert!(Catalog::parse(text.as_bytes()).is_err(), "{text:?}");
        assert!(Index::parse(text.as_bytes()).is_err(), "{text:?}");
    }
    for text in ["{}", "null", " {} \n\t"] {
        assert!(Catalog::parse(text.as_bytes()).is_ok(), "{text:?}");
    }
}

#[test]
fn documents_are_bounded() {
    let entries: String = (0..=MAX_ENTRIES).map(|n| format!(",\"{n:x}\":{{}}")).collect();
    let many = format!("{{\"products\":{{{}}}}}", &entries[1..]);
    assert!(Catalog::parse(many.as_bytes()).unwrap_err().to_string().contains("too many"));
    assert!(matches!(Catalog::parse(&vec![b' '; MAX_DOCUMENT + 1]), Err(ParseError::TooLarge)));

    // Depth: what is skipped needs no stack, what is read has a fixed shape.
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Catalog::parse(deep.as_bytes()).is_ok());
    assert!(Catalog::parse("{\"products\":".repeat(100_000).as_bytes()).is_err());
}

#[test]
fn an_index_names_the_catalogs_of_images_that_have_products() {
    let entry = |datatype: &str, path: &str, products: &str| {
        format!(r#"{{"datatype":"{datatype}","path":"{path}","products":{products}}}"#)
    };
    let entries = [
        entry("image-downloads", "b", r#"["p"]"#),
        entry("image-downloads", "a", r#"["p",null]"#),
        entry("image-downloads", "a", r#"["q"]"#),
        entry("image-downloads", "empty", "[]"),
        entry("image-downloads", "null", "null"),
        entry("image-ids", "ids", r#"["p"]"#),
        entry("Image-Downloads", "case", r#"["p"]"#),
    ];
    let entries: Vec<_> =
        entries.iter().enumerate().map(|(n, entry)| format!("\"{n}\":{entry}")).collect();
    let index = format!("{{\"index\":{{{}}}}}", entries.join(","));
    assert_eq!(Index::parse(index.as_bytes()).unwrap().catalogs(), ["b", "a"]);
    assert!(Index::parse(br#"{"index":{"a":{"products":[1]}}}"#).is_err());
    assert!(Index::parse(b"null").unwrap().catalogs().is_empty());
}

#[test]
fn what_is_written_reads_back() {
    let golden = include_str!("../../tests/golden/streams/v1/images.json");
    let catalog = Catalog::parse(golden.as_bytes()).unwrap();
    let written = serde_json::to_vec(&catalog).unwrap();
    assert_eq!(Catalog::parse(&written).unwrap(), catalog);
    let text = String::from_utf8(written).unwrap();
    assert!(text.contains("combined_disk-kvm-img_sha256") && !text.contains("disk_kvm"));
    let index = Index::parse(include_bytes!("../../tests/golden/streams/v1/index.json")).unwrap();
    let written = serde_json::to_vec(&index).unwrap();
    assert_eq!(Index::parse(&written).unwrap(), index);
}
