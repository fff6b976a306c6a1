//! The language, feature by feature. Every expected text is what pongo2 4.0.2 makes of it, but
//! for the last test, which tells where this renderer knows more.

use super::{context, render};

const FILTERS: &[(&str, &str)] = &[
    (
        r#"{{ "x"|default:"y" }}{{ ""|default:"y" }}{{ nothing|default:"y" }}{{ nothing|default:trigger }}{{ 0|default:1 }}"#,
        "xyycreate1",
    ),
    (r#"{{ nothing|default_if_none:"y" }}[{{ ""|default_if_none:"y" }}]"#, "y[]"),
    (
        r#"{{ "aBc"|upper }}{{ "aBc"|lower }}{{ "aBc dE"|title }}{{ "abc"|capfirst }}{{ ""|capfirst }}"#,
        "ABCabcAbc DeAbc",
    ),
    (r#"{{ "hello-world it's a_b 3rd"|title }}{{ 5|title }}"#, "Hello-World It'S A_b 3rd"),
    (
        r#"{{ "abc"|length }}{{ "äöü"|length }}{{ devices|length }}{{ 5|length }}{{ "abc"|length_is:3 }}"#,
        "3320True",
    ),
    (
        r#"{{ "a,b,c"|split:","|join:"-" }}{{ "abc"|join:"-" }}{{ 5|join:"-" }}{{ "a b"|split:" "|length }}"#,
        "a-b-ca-b-c52",
    ),
    (
        r#"{{ "abc"|first }}{{ "abc"|last }}{{ "a,b"|split:","|first }}{{ "a,b"|split:","|last }}[{{ ""|first }}{{ 5|last }}]"#,
        "acab[]",
    ),
    (r#"{{ "banana"|cut:"a" }}{{ 15|cut:"5" }}"#, "bnn1"),
    (
        r#"{{ 5|add:2 }} {{ 5|add:1.5 }} {{ "5"|add:2 }} {{ "a"|add:"b" }} {{ 5|add:nothing }}"#,
        "7 6.500000 52 ab 5",
    ),
    (r#"{{ "<a href='x'>\"&"|escape }}{{ "<"|safe }}"#, "&lt;a href=&#39;x&#39;&gt;&quot;&amp;<"),
    (r#"{{ "it's \"q\" \\"|addslashes }}"#, r#"it\'s \"q\" \\"#),
    (
        r#"{{ true|yesno }}{{ false|yesno }}{{ nothing|yesno }}{{ true|yesno:"a,b" }}{{ nothing|yesno:"a,b,c" }}{{ ""|yesno:"a,b,c" }}"#,
        "yesnomaybeacb",
    ),
    (
        r#"{{ 1.5|floatformat }} {{ 2.0|floatformat }} {{ 1.256|floatformat:2 }} {{ 2.0|floatformat:2 }} {{ 1.55|floatformat:0 }} {{ "1.5"|floatformat:"2" }}"#,
        "1.5 2 1.26 2.00 2 1.50",
    ),
    (
        r#"{{ "12"|integer }}{{ "x"|integer }}{{ "1.9"|integer }}{{ "1.5"|float }}{{ true|integer }}"#,
        "12011.5000000",
    ),
    (
        r#"{{ "a b  c"|wordcount }}{{ "a b c d"|wordwrap:2 }}{{ "a b c d"|truncatewords:2 }}{{ "a b"|truncatewords:2 }}"#,
        "3a b\nc da b ...a b",
    ),
    (
        r#"{{ "Joel is a slug"|truncatechars:9 }} {{ "abc"|truncatechars:3 }} {{ "abcd"|truncatechars:2 }}"#,
        "Joel i... abc ab",
    ),
    (r#"{{ "a b&c/d~e"|urlencode }} {{ "ä b/c?d=1"|iriencode }}"#, "a+b%26c%2Fd~e %C3%A4+b/c?d=1"),
    (
        r#"{{ "ab"|center:5 }}|{{ "ab"|ljust:5 }}|{{ "ab"|rjust:5 }}|{{ "abc"|ljust:2 }}|{{ "ab"|center:1 }}"#,
        "  ab |ab   |   ab|abc|ab",
    ),
    (
        r#"{{ "abcdef"|slice:"1:3" }} {{ "abcdef"|slice:":3" }} {{ "a,b,c"|split:","|slice:"0:2"|join:"" }}"#,
        "bc abc ab",
    ),
    (r#"{{ "<b>x</b> y"|striptags }} {{ "<b>x</b> <i>y</i>"|removetags:"b" }}"#, "x y x <i>y</i>"),
    ("{{ 21|divisibleby:7 }}{{ 21|divisibleby:2 }}{{ 21|divisibleby:0 }}", "TrueFalseFalse"),
    ("{{ 12345|get_digit:2 }}{{ 12345|get_digit:9 }}{{ 12345|get_digit:0 }}", "41234512345"),
    (
        r#"{{ "abc"|make_list|join:"," }} {{ "Call 1-800-FLOWERS"|phone2numeric }}"#,
        "a,b,c 2255 1-800-3569377",
    ),
    (
        r#"customer{{ 0|pluralize }} customer{{ 1|pluralize }} cherr{{ 1|pluralize:"y,ies" }} cherr{{ 2|pluralize:"y,ies" }} walrus{{ 2|pluralize:"es" }}"#,
        "customers customer cherry cherries walruses",
    ),
    (r#"{{ "a <b>"|escapejs }} {{ "é'\\n"|escapejs }}"#, r"a \u003Cb\u003E \u00E9\u0027\u000A"),
    (
        r#"{{ 5|stringformat:"%03d" }} {{ "x"|stringformat:"[%5s]" }} {{ "x"|stringformat:"[%-5s]" }} {{ 255|stringformat:"%x" }} {{ 255|stringformat:"%#X" }} {{ 1.5|stringformat:"%.2f" }} {{ "abc"|stringformat:"%.2s%%" }} {{ "q"|stringformat:"%q" }} {{ 5|stringformat:"%4d|" }} {{ 5|stringformat:"%+d" }} {{ 5|stringformat:"%b %%" }}"#,
        r#"005 [    x] [x    ] ff 0XFF 1.50 ab% "q"    5| +5 101 %"#,
    ),
    (r#"{{ "a"|upper|lower|add:"B" }} {{ trigger|upper|cut:"E"|length }}"#, "aB 4"),
    (r#"{{ "abc"|upper == "ABC" }} {{ "a"|add:"b" == "ab" }}"#, "True True"),
    (r#"{{ "straße ß"|upper }}"#, "STRAßE ß"),
    ("{% filter linebreaksbr %}a\nb{% endfilter %}", "a<br />b"),
    ("{% filter linenumbers %}a\nb{% endfilter %}", "1. a\n2. b"),
    ("{% filter linebreaks %}a\nb\n\nc{% endfilter %}", "<p>a<br />b</p><p>c</p>"),
    ("{% filter wordcount %} a\tb\nc {% endfilter %}", "3"),
];

fn check(cases: &[(&str, &str)]) {
    let context = context();
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(source, expected)| match render(source, &context) {
            Ok(text) if text == *expected => None,
            other => Some(format!("{source:?}\n  expected {expected:?}\n  got {other:?}")),
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_and_paths() {
    check(&[
        ("plain text, nothing else", "plain text, nothing else"),
        ("{{ trigger }} {{ path }}", "create /etc/hostname"),
        ("{{ container.name }}/{{ instance.type }}", "c1/container"),
        (
            "{{ instance.architecture }} {{ instance.ephemeral }} {{ instance.privileged }}",
            "x86_64 false false",
        ),
        (
            r#"[{{ nothing }}][{{ nothing.at.all }}][{{ instance.nothing }}][{{ nothing("x") }}]"#,
            "[][][][]",
        ),
        ("{{ properties.default }}{{ properties.n }}", "dflt20"),
        ("{{ devices.root.path }}{{ devices.eth0.hwaddr }}{{ devices.none.type }}", "/aa"),
        (
            r#"{{ "text" }}{{ 'text' }}{{ 42 }}{{ 1.5 }}{{ true }}{{ false }}"#,
            "texttext421.500000TrueFalse",
        ),
        (r#"{{ "a \"b\" \\ c" }}"#, r#"a "b" \ c"#),
        (r#"{{ "{% not a tag %}" }}"#, "{% not a tag %}"),
        ("{{ config }}", "<map[string]string Value>"),
        (r#"{{ "a%}b}}c" }}"#, "a%}b}}c"),
    ]);
}

#[test]
fn config_get() {
    check(&[
        (r#"{{ config_get("user.user-data", properties.default) }}"#, "#cloud-config\nx: 1"),
        (r#"{{ config_get("user.missing", properties.default) }}"#, "dflt"),
        (r#"{{ config_get("user.missing", "") }}|"#, "|"),
        (r##"{{ config_get("user.missing", "#cloud-config\\n{}") }}"##, r"#cloud-config\n{}"),
        (r#"[{{ config_get("user.crlf", "") }}]"#, "[a]"),
        (r#"{{ config_get("limits.cpu", 1) + 1 }}"#, "3"),
        ("{{ config_get('user.access_interfaces', 'x') }}", "eth0"),
        (r#"{{ config_get("user.missing", nothing)|default:"d" }}"#, "d"),
        (r#"{{ config_get("user.missing", nothing)|default_if_none:"d" }}"#, "d"),
        (r#"{{ config_get("empty", "d") }}|"#, "|"),
        (r#"{% if config_get("user.user-data", "") == "" %}none{% else %}some{% endif %}"#, "some"),
        (
            r#"{% if config_get("user.network-config", "") == "" %}none{% else %}some{% endif %}"#,
            "none",
        ),
    ]);
}

#[test]
fn conditions() {
    check(&[
        (r#"{% if trigger == "create" %}a{% endif %}"#, "a"),
        (
            r#"{% if trigger == "start" %}a{% elif trigger == "create" %}b{% else %}c{% endif %}"#,
            "b",
        ),
        (r#"{% if trigger == "x" %}a{% elif trigger == "y" %}b{% else %}c{% endif %}"#, "c"),
        (r#"{% if trigger == "x" %}a{% elif trigger == "y" %}b{% endif %}"#, ""),
        ("{% if nothing %}a{% else %}b{% endif %}", "b"),
        (r#"{% if nothing == "" %}a{% else %}b{% endif %}"#, "b"),
        ("{% if nothing == nothing2 %}a{% else %}b{% endif %}", "a"),
        ("{% if config.empty %}a{% else %}b{% endif %}", "b"),
        ("{% if instance.ephemeral %}a{% else %}b{% endif %}", "a"),
        ("{% if not nothing %}a{% endif %}{% if !nothing %}b{% endif %}", "ab"),
        ("{% if nothing and trigger %}a{% else %}b{% endif %}", "b"),
        ("{% if nothing or trigger %}a{% else %}b{% endif %}", "a"),
        (
            "{% if nothing && trigger %}a{% else %}b{% endif %}{% if nothing || trigger %}c{% endif %}",
            "bc",
        ),
        (
            r#"{% if trigger != "create" %}a{% else %}b{% endif %}{% if trigger <> "x" %}c{% endif %}"#,
            "bc",
        ),
        (r#"{% if "rea" in trigger %}a{% endif %}{% if "x" in trigger %}b{% endif %}"#, "a"),
        (r#"{% if "root" in devices %}a{% endif %}{% if "x" in devices %}b{% endif %}"#, "a"),
        (r#"{% if not ("x" in devices) %}a{% endif %}"#, "a"),
        (r#"{% if not "x" in devices %}a{% else %}b{% endif %}"#, "b"),
        (
            r#"{% if 1 == "1" %}a{% else %}b{% endif %}{% if 1 == 1.0 %}a{% else %}b{% endif %}"#,
            "bb",
        ),
        (
            "{% if properties.n >= 20 %}a{% endif %}{% if properties.n > 20 %}b{% endif %}{% if properties.n < 20.5 %}c{% endif %}",
            "ac",
        ),
        (
            r#"{% if 2 <= 1 %}a{% else %}b{% endif %}{% if "abc" < "abd" %}a{% else %}b{% endif %}"#,
            "bb",
        ),
        (
            r#"{% if (trigger == "create" or trigger == "copy") and instance.name == "c1" %}a{% endif %}"#,
            "a",
        ),
        (r#"{% if trigger == "create" or nothing and nothing %}a{% else %}b{% endif %}"#, "a"),
        ("{% if nothing and nothing or trigger %}a{% else %}b{% endif %}", "b"),
        (r#"{{ true and true }}{{ "a" or "b" }}{{ nothing or "" }}"#, "TrueTrueFalse"),
        ("{% if true == true == true %}a{% else %}b{% endif %}", "a"),
        ("{% if 3 == 3 == false %}a{% else %}b{% endif %}", "b"),
        (r#"{% ifequal trigger "create" %}a{% else %}b{% endifequal %}"#, "a"),
        (
            r#"{% ifequal trigger "x" %}a{% else %}b{% endifequal %}{% ifequal 1 1 %}c{% endifequal %}"#,
            "bc",
        ),
        (
            r#"{% ifnotequal trigger "create" %}a{% else %}b{% endifnotequal %}{% ifnotequal 1 2 %}c{% endifnotequal %}"#,
            "bc",
        ),
    ]);
}

#[test]
fn arithmetic() {
    check(&[
        (
            "{{ 1 + 2 * 3 }} {{ (1 + 2) * 3 }} {{ 10 - 2 - 3 }} {{ 100 / 10 / 5 }} {{ 7 / 2 }} {{ 7 % 4 }}",
            "7 9 5 2 3 3",
        ),
        (
            "{{ -5 }} {{ -5 + 3 }} {{ 5 - 8 }} {{ 2 ^ 3 }} {{ 2 ^ 3 ^ 2 }}",
            "-5 -2 -3 8.000000 512.000000",
        ),
        (
            "{{ 1.5 + 1 }} {{ 7 / 2.0 }} {{ 1.5 * 2 }} {{ 3 - 0.5 }}",
            "2.500000 3.500000 3.000000 2.500000",
        ),
        (
            r#"{{ not 1 }}{{ not 0 }}{{ !"" }}{{ !"a" }}{{ not 1.5 }}{{ not 0.0 }}"#,
            "01TrueFalse0.0000001.100000",
        ),
        (r#"{{ properties.n + 1 }} {{ "3" * "4" }} {{ true + 1 }}"#, "21 12 1"),
        ("{{ 9223372036854775807 + 1 }}", "-9223372036854775808"),
        ("{{ not 1 + 1 }}", "1"),
        ("{{ -2 * 3 }}", "-6"),
        ("{{ 1.0 / 0 }}", "+Inf"),
    ]);
}

#[test]
fn loops() {
    check(&[
        ("{% for k in devices sorted %}{{ k }};{% endfor %}", "eth0;root;"),
        ("{% for k in devices reversed sorted %}{{ k }};{% endfor %}", "root;eth0;"),
        (
            "{% for k, v in devices sorted %}{{ k }}={{ v.type }};{% endfor %}",
            "eth0=nic;root=disk;",
        ),
        ("{% for k, v in nothing %}x{% empty %}none{% endfor %}", "none"),
        ("{% for k in nothing %}x{% endfor %}|", "|"),
        (
            r#"{% for c in "abc" %}{{ c }}.{% endfor %}{% for c in "abc" reversed %}{{ c }}{% endfor %}"#,
            "a.b.c.cba",
        ),
        (
            r#"{% for w in "b,a,c"|split:"," %}{{ forloop.Counter }}{{ forloop.Counter0 }}{{ forloop.Revcounter }}{{ forloop.Revcounter0 }}{{ w }}{% if forloop.First %}F{% endif %}{% if forloop.Last %}L{% endif %} {% endfor %}"#,
            "1032bF 2121a 3210cL ",
        ),
        (r#"{% for w in "b,a,c"|split:"," sorted %}{{ w }}{% endfor %}"#, "abc"),
        (r#"{% for w in "b,a,c"|split:"," reversed %}{{ w }}{% endfor %}"#, "cab"),
        (r#"{% for w in "b,a,c"|split:"," reversed sorted %}{{ w }}{% endfor %}"#, "cba"),
        (
            r#"{% for a in "12" %}{% for b in "xy" %}{{ forloop.Parentloop.Counter }}{{ b }} {% endfor %}{% endfor %}"#,
            "1x 1y 2x 2y ",
        ),
        (r#"{% for a in "12" %}{{ forloop.counter }}{{ forloop.first }}{% endfor %}|"#, "|"),
        (
            r#"{% for a in "ab" %}{% if not forloop.First %}, {% endif %}{{ a }}{% endfor %}"#,
            "a, b",
        ),
        ("{% for a in 5 %}x{% empty %}e{% endfor %}", "e"),
        (
            r#"{% for k, v in devices sorted %}{% if k == "eth0" %}{% for a, b in v sorted %}{{ a }}:{{ b }} {% endfor %}{% endif %}{% endfor %}"#,
            "hwaddr:aa type:nic ",
        ),
        (r#"{% for a in "ab" %}{% set last = a %}{% endfor %}[{{ last }}]"#, "[]"),
        (r#"{% for a in "ab" %}{{ seen }}{% set seen = a %}{% endfor %}"#, "a"),
        (r#"{% set x = "o" %}{% for a in "ab" %}{% set x = a %}{% endfor %}{{ x }}"#, "o"),
    ]);
}

#[test]
fn set_and_with() {
    check(&[
        (r#"{% set x = "1" %}{{ x }}"#, "1"),
        (r#"{% set x = config_get("limits.cpu", "1") %}{{ x }}{% set x = x + 1 %}{{ x }}"#, "23"),
        ("{% if true %}{% set x = 1 %}{% endif %}{{ x }}", "1"),
        (r#"{% with x=1 y="b" %}{{ x }}{{ y }}{% endwith %}[{{ x }}]"#, "1b[]"),
        ("{% with trigger as t %}{{ t }}{% endwith %}", "create"),
        ("{% with 1 as a 2 as b %}{{ a }}{{ b }}{% endwith %}", "12"),
        ("{% set x = 1 %}{% with x=2 %}{{ x }}{% set x = 3 %}{{ x }}{% endwith %}{{ x }}", "231"),
        (r#"{% set trigger = "mine" %}{{ trigger }}"#, "mine"),
        ("{% set d = devices.eth0 %}{{ d.type }}", "nic"),
        ("{% set x = nothing %}[{{ x }}]{% if x %}a{% else %}b{% endif %}", "[]b"),
        ("{% with a=1+2 b=a %}{{ a }}[{{ b }}]{% endwith %}", "3[]"),
    ]);
}

#[test]
fn text_and_whitespace() {
    check(&[
        ("a{# gone #}b", "ab"),
        ("a{# {{ x }} {% if %} #}b", "ab"),
        ("a{% comment %}gone {{ x }} {% if %}{% endcomment %}b", "ab"),
        ("{% verbatim %}{{ x }} {% if %}{% endverbatim %}z", "{{ x }} {% if %}z"),
        ("a  {{- trigger -}}  b", "acreateb"),
        ("a  {%- if true -%}  b  {%- endif -%}  c", "abc"),
        ("a  {%- if true %}  b  {% endif -%}  c", "a  b  c"),
        ("a {{- 1 -}} {{- 2 -}} b", "a12b"),
        (r#"a { b } c {{ "{" }} % } }} %}"#, "a { b } c { % } }} %}"),
        (
            "{% templatetag openblock %}{% templatetag closeblock %}{% templatetag openvariable %}{% templatetag closevariable %}{% templatetag openbrace %}{% templatetag closebrace %}{% templatetag opencomment %}{% templatetag closecomment %}",
            "{%%}{{}}{}{##}",
        ),
        (
            r#"{% autoescape on %}{{ "<a>" }}{{ "<a>"|safe }}{% endautoescape %}{{ "<a>" }}"#,
            "&lt;a&gt;<a><a>",
        ),
        (r#"{% autoescape off %}{{ "<a>" }}{% endautoescape %}"#, "<a>"),
        ("{% filter upper %}abc {{ trigger }}{% endfilter %}", "ABC CREATE"),
        (r#"{% filter upper|cut:"B"|add:"!" %}abc{% endfilter %}"#, "AC!"),
        (r#"{% firstof nothing config.empty trigger "x" %}"#, "create"),
        ("{% firstof nothing nothing2 %}|", "|"),
        ("{% spaceless %}<a>  <b> x </b>  </a>{% endspaceless %}", "<a><b> x </b></a>"),
        (
            "{% block one %}in {{ trigger }}{% endblock %}{% block two %}2{% endblock two %}",
            "in create2",
        ),
        ("{{trigger}}{{ trigger}}{%if true%}a{%endif%}", "createcreatea"),
        ("{{-1}} {{ 1-1 }}", "1 0"),
        ("a\n{% if true %}\nb\n{% endif %}\nc\n", "a\n\nb\n\nc\n"),
        ("  {{- trigger -}}\n\n b", "createb"),
        ("{% set a = 1 %}\n{{ a }}\n", "\n1\n"),
        ("x\n{# c #}\ny\n", "x\n\ny\n"),
        (r"{{ 'a\\b' }}", r"a\b"),
    ]);
}

#[test]
fn filters() {
    check(FILTERS);
}

#[test]
fn more_than_the_reference_can() {
    check(&[
        ("{{ devices[\"eth0\"].type }}{{ devices['root']['path'] }}", "nic/"),
        ("{% set k = \"limits.cpu\" %}{{ config[k] }}{{ config[\"none\"] }}", "2"),
        (
            "{% set l = \"a,b\"|split:\",\" %}{{ l[1] }}{{ l.0 }}{{ l[5] }}{{ l.7 }}{{ l[0 - 1] }}",
            "ba",
        ),
        ("{{ trigger + \"-\" + 1 }}", "create-1"),
        ("{% for k in devices reversed %}{{ k }} {% endfor %}", "root eth0 "),
        (
            "{% for k, v in config %}{{ k }} {% endfor %}",
            "empty limits.cpu user.access_interfaces user.crlf user.user-data ",
        ),
        (
            "{% for c in \"äß\" %}{{ c }}.{% endfor %}{% for c in \"cab\" sorted %}{{ c }}{% endfor %}",
            "ä.ß.abc",
        ),
        ("{% for c in \"ab\" reversed %}{{ c }}{{ forloop.Counter }}{% endfor %}", "b1a2"),
        ("{% comment \"note\" %}don't {{ {% {% endcomment %}x", "x"),
        ("{%- verbatim -%} {{ x }} {%- endverbatim -%} y", "{{ x }}y"),
        ("{{ \"<\"|e }}{{ \"abcdef\"|slice:\"-2:\" }}{{ \"abcdef\"|slice:\":-4\" }}", "&lt;efab"),
        ("{{ \"a b c\"|wordwrap:2 }}", "a b\nc"),
    ]);
}
