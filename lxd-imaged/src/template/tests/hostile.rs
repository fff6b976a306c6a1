//! Templates that want to run away, and input that is none: whatever comes, it ends soon.

use std::time::{Duration, Instant};

use super::{context, map, render};
use crate::template::{Error, MAX_OUTPUT, MAX_SOURCE};

/// Far more than any of these needs on a busy machine, far less than a run-away.
const SOON: Duration = Duration::from_secs(20);

fn limit(source: &str) -> String {
    let begin = Instant::now();
    let result = render(source, &context());
    assert!(begin.elapsed() < SOON, "took {:?}", begin.elapsed());
    match result {
        Err(error @ Error::Limit { .. }) => error.to_string(),
        other => panic!("expected a limit, got {:?}", other.map(|text| text.len())),
    }
}

#[test]
fn no_tag_reads_a_file() {
    for tag in [
        "include \"/etc/shadow\"",
        "include config_get(\"user.user-data\", \"\")",
        "import \"x.tpl\" a",
        "extends \"../../etc/shadow\"",
        "ssi \"/etc/shadow\"",
        "ssi \"/etc/shadow\" parsed",
        "exec \"id\"",
    ] {
        let source = format!("a\n  {{% {tag} %}}");
        let error = render(&source, &context()).unwrap_err();
        assert!(matches!(error, Error::Refused { line: 2, column: 3, .. }), "{tag}: {error:?}");
        assert!(error.to_string().contains("can't read other files"), "{error}");
        // Nor where it is never reached.
        render(&format!("{{% if false %}}{source}{{% endif %}}"), &context()).unwrap_err();
    }
}

#[test]
fn a_template_may_be_as_large_as_allowed_and_no_larger() {
    let text = "x".repeat(MAX_SOURCE);
    assert_eq!(render(&text, &context()).unwrap().len(), MAX_SOURCE);
    assert!(limit(&(text + "x")).contains("it may have 1 MiB"));
    let many = "{{ a }}".repeat(60_000);
    assert!(limit(&many).contains("50000 texts"));
    let long = format!("{{{{ {} }}}}", "1 + ".repeat(10_000));
    assert!(limit(&long).contains("5000 words"));
    let name = format!("{{{{ {} }}}}", "a".repeat(10_000));
    assert!(limit(&name).contains("500 characters"));
}

#[test]
fn output_is_bounded() {
    let hundred = "x".repeat(100);
    let digits = "{% for a in \"0123456789\" %}";
    let source = format!("{}{hundred}{}", digits.repeat(5), "{% endfor %}".repeat(5));
    assert!(limit(&source).contains("the file made from it may have 1 MiB"));
    // Held back by a tag, it counts too.
    let source = format!("{{% filter upper %}}{source}{{% endfilter %}}");
    assert!(limit(&source).contains("the file made from it may have 1 MiB"));
    let mut large = context();
    large.config = map(&[("user.user-data", &"y".repeat(MAX_OUTPUT))]);
    let twice = "{{ config_get(\"user.user-data\", \"\") }}";
    assert_eq!(render(twice, &large).unwrap().len(), MAX_OUTPUT);
    assert!(matches!(render(&twice.repeat(2), &large), Err(Error::Limit { .. })));
}

#[test]
fn work_is_bounded() {
    let loops = |inner: &str| {
        let digits = "{% for a in \"0123456789\" %}";
        format!("{}{inner}{}", digits.repeat(8), "{% endfor %}".repeat(8))
    };
    let doubled = "{% set x = x|default:\"0123456789abcdef\" %}{% set x = x|add:x %}";
    for source in [
        loops(""),
        loops("{% set a = 1 %}"),
        doubled.repeat(100),
        format!("{}{}", doubled.repeat(16), loops("{% if x == y %}{% endif %}")),
        format!("{}{{% set y = x|add:\"\" %}}{}", doubled.repeat(16), loops("{{ x == y }}")),
        format!("{}{}", doubled.repeat(16), loops("{% if \"nothing\" in x %}{% endif %}")),
        format!("{}{}", doubled.repeat(16), loops("{% set y = x|split:\"0\" %}")),
        format!("{}{}", doubled.repeat(16), loops("{% set y = x|length %}{% set z = x.5 %}")),
        format!("{}{}", doubled.repeat(16), loops("{% set y = x|upper|escape|cut:\"a\" %}")),
        format!("{}{}", doubled.repeat(16), loops("{% for c in x sorted %}{% endfor %}")),
        format!("{}{{% set l = x|make_list %}}{{{{ l|join:x }}}}", doubled.repeat(14)),
        format!(
            "{}{{{{ x|removetags:x }}}}",
            "{% set x = x|default:\"a,\" %}{% set x = x|add:x %}".repeat(15)
        ),
        "{{ \"a\"|ljust:9000000000000000000 }}".into(),
        "{{ \"a\"|rjust:2000000 }}".into(),
        "{{ \"a\"|center:2000000 }}".into(),
    ] {
        limit(&source);
    }
    for source in [
        "{{ \"a\"|stringformat:\"%2000000s\" }}",
        "{{ \"a\"|stringformat:\"%99999999999999999999999s\" }}",
        "{{ 1.5|floatformat:2000000 }}",
        "{{ \"a\"|stringformat:\"%s%s\" }}",
    ] {
        assert!(matches!(render(source, &context()), Err(Error::Value { .. })), "{source}");
    }
}

#[test]
fn depth_is_bounded() {
    for (open, close) in [
        ("{% if a %}", "{% endif %}"),
        ("{% for a in b %}", "{% endfor %}"),
        ("{% with a=1 %}", "{% endwith %}"),
        ("{% filter upper %}", "{% endfilter %}"),
        ("{% block a %}", "{% endblock %}"),
        ("{% if a %}{% else %}", "{% endif %}"),
    ] {
        let nested = |depth: usize| open.repeat(depth) + &close.repeat(depth);
        render(&nested(50), &context()).unwrap();
        assert!(limit(&nested(51)).contains("nested 50 deep"), "{open}");
        assert!(limit(&open.repeat(20_000)).contains("nested 50 deep"), "{open}");
    }
    for (open, close) in [("(", ")"), ("a[", "]"), ("a(", ")"), ("a|default:a(", ")"), ("-(", ")")]
    {
        let nested =
            |depth: usize| format!("{{{{ {}1{} }}}}", open.repeat(depth), close.repeat(depth));
        render(&nested(49), &context()).unwrap();
        assert!(limit(&nested(50)).contains("nested 50 deep"), "{open}");
        assert!(limit(&nested(700)).contains("nested 50 deep"), "{open}");
    }
    // Chains are no nests.
    for operator in ["+", "*", "^", "==", "and", "||", "|upper|add:"] {
        let chain = format!("{{{{ 1{} }}}}", format!(" {operator} 1").repeat(800));
        render(&chain, &context()).unwrap();
    }
}

/// Numbers that are the same in every run: a failure can be repeated.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound).unwrap()).unwrap()
    }
}

const SCRAPS: [&str; 96] = [
    "{{",
    "}}",
    "{%",
    "%}",
    "{%-",
    "-%}",
    "{{-",
    "-}}",
    "{#",
    "#}",
    " ",
    "\n",
    "\r",
    "\t",
    "a",
    "x",
    "if ",
    "elif ",
    "else",
    "endif",
    "for ",
    "in ",
    "endfor",
    "empty",
    "set ",
    "with ",
    "endwith",
    "as ",
    "comment",
    "endcomment",
    "verbatim",
    "endverbatim",
    "filter ",
    "endfilter",
    "block ",
    "endblock",
    "autoescape on",
    "endautoescape",
    "ifequal ",
    "endifequal",
    "firstof ",
    "spaceless",
    "endspaceless",
    "templatetag openblock",
    "include ",
    "trigger",
    "config",
    "devices",
    "properties.n",
    "config_get(",
    "forloop.Counter",
    "not ",
    "and ",
    "or ",
    "true",
    "\"",
    "'",
    "\"a,b\"",
    "\\",
    "(",
    ")",
    "[",
    "]",
    ".",
    ",",
    "|",
    ":",
    "=",
    "==",
    "!=",
    "<",
    ">=",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "!",
    "0",
    "1",
    "9223372036854775807",
    "1.5",
    "ä",
    "\u{1f600}",
    "|upper",
    "|split:\",\"",
    "|join:\"-\"",
    "|slice:\"1:\"",
    "|floatformat:2",
    "|ljust:9",
    "|stringformat:\"%5d\"",
    "|get_digit:1",
    "|divisibleby:0",
    "reversed",
    "sorted",
];

#[test]
fn random_templates_end_without_panic() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let context = context();
    let (mut good, mut bad) = (0, 0);
    for _ in 0..20_000 {
        let mut source = String::new();
        for _ in 0..numbers.below(30) {
            source.push_str(SCRAPS[numbers.below(SCRAPS.len())]);
        }
        match render(&source, &context) {
            Ok(_) => good += 1,
            Err(_) => bad += 1,
        }
    }
    assert!(good > 500 && bad > 500, "{good} good, {bad} bad");
}

#[test]
fn random_expressions_end_without_panic() {
    let mut numbers = Numbers(42);
    let context = context();
    let operands = [
        "trigger",
        "nothing",
        "devices",
        "devices.eth0",
        "properties.n",
        "forloop",
        "1",
        "0",
        "1.5",
        "-1",
        "\"a,b\"",
        "\"\"",
        "\"-9223372036854775808\"",
        "9223372036854775807",
        "true",
        "config_get(\"user.crlf\", 1)",
        "\"ä\"",
        "\"nan\"",
        "\"inf\"",
        "(1 - 2)",
    ];
    let operators = ["+", "-", "*", "/", "%", "^", "==", "<", "in", "and", "or", ">="];
    let filters: Vec<&str> =
        crate::template::filters::FILTERS.iter().map(|(name, _)| *name).collect();
    let (mut good, mut bad) = (0, 0);
    for _ in 0..20_000 {
        let mut source = String::from("{% set x = \"a,b,c\"|split:\",\" %}{{ ");
        let mut operator = "";
        for index in 0..=numbers.below(3) {
            if index > 0 {
                // What compares can't follow an `in`.
                operator = match operators[numbers.below(operators.len())] {
                    "==" | "<" | ">=" | "in" if operator == "in" => "and",
                    // A sum is below both of them.
                    "+" | "-" | "*" | "/" | "%" | "^" if operator == "in" => "or",
                    operator => operator,
                };
                source.push_str(operator);
                source.push(' ');
            }
            let operand = match operands[numbers.below(operands.len())] {
                // The language has no sign there.
                "-1" if index > 0 => "x",
                operand => operand,
            };
            source.push_str(operand);
            // Nor filters of brackets.
            let most = if operand.starts_with('(') { 1 } else { 3 };
            for _ in 0..numbers.below(most) {
                source.push('|');
                source.push_str(filters[numbers.below(filters.len())]);
                if numbers.below(2) == 0 {
                    source.push(':');
                    let parameter = operands[numbers.below(operands.len())];
                    source.push_str(if parameter.starts_with(['-', '(']) {
                        "2"
                    } else {
                        parameter
                    });
                }
            }
            source.push(' ');
        }
        source.push_str("}}");
        match render(&source, &context) {
            Ok(_) => good += 1,
            Err(Error::Syntax { .. }) => panic!("{source:?} is well formed"),
            Err(_) => bad += 1,
        }
    }
    assert!(good > 5_000 && bad > 100, "{good} good, {bad} bad");
}

#[test]
fn cut_short_at_any_byte_it_is_an_error_or_a_text() {
    let source = "a {% if x == \"y\" -%} {{ config_get('k', 1.5)|default:\"z\" }} {% else %}\
                  {# r #}{% for k, v in devices sorted %}{{ k }}{% endfor %}{% endif %}";
    render(source, &context()).unwrap();
    for end in 0..source.len() {
        let result = render(&source[..end], &context());
        assert_eq!(result.is_ok(), end <= 3, "{:?}: {result:?}", &source[..end]);
    }
}
