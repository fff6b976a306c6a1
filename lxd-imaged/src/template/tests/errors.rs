//! Errors: each names the place, what was expected there and what is there.

use super::{context, render};

const ERRORS: &[(&str, &str)] = &[
    ("{{ trigger.x }}", "line 1, column 4: can't take `x` out of `trigger`: it is text"),
    (r#"{{ trigger("x") }}"#, "line 1, column 4: `trigger` is no function: it is text"),
    (
        r#"{{ config_get("x") }}"#,
        "line 1, column 4: expected `config_get(KEY, DEFAULT)` with these two arguments",
    ),
    (
        "{{ config_get }}",
        "line 1, column 4: expected `config_get(KEY, DEFAULT)` with these two arguments",
    ),
    ("{{ 1 / 0 }}", "line 1, column 6: can't divide by 0"),
    ("{{ 1 % 0 }}", "line 1, column 6: can't divide by 0"),
    (r#"{{ -"a" }}"#, "line 1, column 4: expected a number after `-`, this is text"),
    ("{{ }}", "line 1, column 4: expected a value (a name, a string or a number), found `}}`"),
    ("{{ a", "line 1, column 1: expected `}}` further on"),
    ("{{ a %}", "line 1, column 7: expected a name, a value or `}}`, found '}'"),
    (
        "{% if %}x{% endif %}",
        "line 1, column 7: expected a value (a name, a string or a number), found `%}`",
    ),
    (
        "{% if a %}x",
        "line 1, column 1: expected `{% elif %}` or `{% else %}` or `{% endif %}` further down",
    ),
    ("{% if a b %}x{% endif %}", "line 1, column 9: expected `%}`, found `b`"),
    (
        "{% nosuchtag %}",
        "line 1, column 1: expected a tag: if, for, set, with, comment, ifequal, ifnotequal, autoescape, verbatim, filter, firstof, spaceless, block or templatetag; found `nosuchtag`",
    ),
    ("{% %}", "line 1, column 4: expected the name of a tag, found `%}`"),
    (r#"{% "x" %}"#, r#"line 1, column 4: expected the name of a tag, found the string "x""#),
    (
        "{{ a|nosuchfilter }}",
        "line 1, column 6: expected a filter (default, upper, …), found `nosuchfilter`",
    ),
    ("{{ a| }}", "line 1, column 7: expected the name of a filter, found `}}`"),
    (
        "{{ a|default: }}",
        "line 1, column 15: expected a value (a name, a string or a number), found `}}`",
    ),
    ("{{ (a }}", "line 1, column 7: expected `)`, found `}}`"),
    ("{{ a) }}", "line 1, column 5: expected `}}`, found `)`"),
    ("{{ a. }}", "line 1, column 7: expected a name or a number after `.`, found `}}`"),
    ("{{ a.b.. }}", "line 1, column 8: expected a name or a number after `.`, found `.`"),
    (r#"{{ "open }}"#, r#"line 1, column 4: expected a closing " in the same line"#),
    (
        r#"{{ "a\nb" }}"#,
        r#"line 1, column 6: expected `\"` or `\\`: a string has no other escapes"#,
    ),
    ("{{ and }}", "line 1, column 4: expected a value (a name, a string or a number), found `and`"),
    ("{{ a b }}", "line 1, column 6: expected `}}`, found `b`"),
    ("{{ 99999999999999999999 }}", "line 1, column 4: 99999999999999999999 is too large"),
    (
        "{# open",
        "line 1, column 1: expected `#}` in the same line; use `{% comment %}` for several lines",
    ),
    ("{% for %}{% endfor %}", "line 1, column 8: expected a name for the elements, found `%}`"),
    ("{% for x %}{% endfor %}", "line 1, column 10: expected `in`, found `%}`"),
    (
        "{% for x in %}{% endfor %}",
        "line 1, column 13: expected a value (a name, a string or a number), found `%}`",
    ),
    (
        "{% for x, in a %}{% endfor %}",
        "line 1, column 11: expected a name for the values, found `in`",
    ),
    ("{% for x in a b %}{% endfor %}", "line 1, column 15: expected `%}`, found `b`"),
    ("{% for x in a %}", "line 1, column 1: expected `{% empty %}` or `{% endfor %}` further down"),
    ("{% set x %}", "line 1, column 10: expected `=`, found `%}`"),
    ("{% set = 1 %}", "line 1, column 8: expected the name to set, found `=`"),
    ("{% set x = 1 2 %}", "line 1, column 14: expected `%}`, found the number 2"),
    ("{% with %}{% endwith %}", "line 1, column 9: expected the name to set, found `%}`"),
    ("{% with a %}{% endwith %}", "line 1, column 11: expected `=`, found `%}`"),
    (
        "{% autoescape maybe %}{% endautoescape %}",
        "line 1, column 15: expected `on` or `off`, found `maybe`",
    ),
    ("{% verbatim %}x", "line 1, column 1: expected `{% endverbatim %}` further down"),
    ("{% comment %}x", "line 1, column 1: expected `{% endcomment %}` further down"),
    (
        "{% templatetag x %}",
        "line 1, column 16: expected one of openblock, closeblock, openvariable, closevariable, openbrace, closebrace, opencomment, closecomment, found `x`",
    ),
    (
        "{% ifequal a %}x{% endifequal %}",
        "line 1, column 14: expected a value (a name, a string or a number), found `%}`",
    ),
    ("{{ a ? b }}", "line 1, column 6: expected a name, a value or `}}`, found '?'"),
    ("{{ a & b }}", "line 1, column 6: expected a name, a value or `}}`, found '&'"),
    (r#"{{ 5|pluralize:"a,b,c" }}"#, "line 1, column 6: pluralize expects one or two endings"),
    (r#"{{ "x"|pluralize }}"#, "line 1, column 8: pluralize expects a number, this is text"),
    (r#"{{ 5|yesno:"a" }}"#, "line 1, column 6: yesno expects two or three words"),
    (
        r#"{{ "a"|slice:"1" }}"#,
        r#"line 1, column 8: slice expects "FROM:TO"; either may be left out"#,
    ),
    ("{{ 1. }}", "line 1, column 7: expected digits after the point, found `}}`"),
    ("{{ devices.0 }}", "line 1, column 4: can't take element 0 of `devices`: it is a map"),
    ("{{ f(1 2) }}", "line 1, column 8: expected `,` or `)`, found the number 2"),
    ("{{ f(1 }}", "line 1, column 8: expected `,` or `)`, found `}}`"),
    ("{% block %}{% endblock %}", "line 1, column 10: expected the name of the block, found `%}`"),
    ("{% block a %}{% endblock b %}", "line 1, column 26: expected `a`, found `b`"),
    ("{% if a %}{% else x %}{% endif %}", "line 1, column 19: expected `%}`, found `x`"),
    (
        "{{ not not a }}",
        "line 1, column 8: expected a value (a name, a string or a number), found `not`",
    ),
    (
        "{{ 1 + -1 }}",
        "line 1, column 8: expected a value (a name, a string or a number), found `-`",
    ),
    (
        "{{ a|default:-1 }}",
        "line 1, column 14: expected a value (a name, a string or a number), found `-`",
    ),
    ("a\nä{{ b }}{{ c d }}", "line 2, column 14: expected `}}`, found `d`"),
    (
        r#"{% include "x" %}"#,
        "line 1, column 1: `include` is refused: templates of images can't read other files; put its text into the template",
    ),
    (
        r#"{% now "x" %}"#,
        "line 1, column 1: `now` is refused: this tag of pongo2 is not carried out; use set, if, for and with",
    ),
    (
        "{{ 1|random }}",
        "line 1, column 6: `random` is refused: this filter of pongo2 is not carried out for files of instances",
    ),
    ("a\n{% if x %}\n b {% else %}\n c", "line 2, column 1: expected `{% endif %}` further down"),
];

#[test]
fn errors_name_the_place_and_what_was_expected() {
    let context = context();
    for (source, expected) in ERRORS {
        let error = render(source, &context).unwrap_err();
        assert_eq!(error.to_string(), *expected, "{source:?}");
    }
}

#[test]
fn an_end_without_its_beginning_is_an_error() {
    for source in ["{% endif %}", "{% else %}", "{% if a %}x{% endfor %}", "{% empty %}"] {
        let error = render(source, &context()).unwrap_err().to_string();
        assert!(error.contains("expected a tag: if, for, "), "{source}: {error}");
    }
}
