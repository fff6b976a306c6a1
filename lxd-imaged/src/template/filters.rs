//! Filters: `value|name:parameter`.

use std::rc::Rc;

use super::error::{Fault, Kind};
use super::evaluate::Work;
use super::format;
use super::lexer::excerpt;
use super::text;
use super::value::{Value, fixed};

type Apply = fn(&Value, &Value, &mut Work) -> Result<Value, Kind>;

/// A filter that is carried out here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filter {
    name: &'static str,
    apply: Apply,
}

/// Filters of pongo2 that need a clock, chance or knowledge of HTML.
const REFUSED: [&str; 7] =
    ["date", "time", "random", "urlize", "urlizetrunc", "truncatechars_html", "truncatewords_html"];

impl Filter {
    /// The filter of this name, which stands at `offset`.
    pub(super) fn named(name: &str, offset: usize) -> Result<Self, Fault> {
        if let Some((name, apply)) = FILTERS.iter().find(|(known, _)| *known == name) {
            return Ok(Self { name, apply: *apply });
        }
        if REFUSED.contains(&name) {
            let reason = "this filter of pongo2 is not carried out for files of instances";
            return Err(Fault::refused(offset, name, reason));
        }
        let name = excerpt(name);
        Err(Fault::syntax(offset, format!("expected a filter (default, upper, …), found `{name}`")))
    }

    /// Whether it marks a value as one not to escape.
    pub(super) fn is_safe(self) -> bool {
        self.name == "safe"
    }

    /// What comes out. The caller has paid for looking at the values and pays for the result.
    pub(super) fn apply(
        self,
        input: &Value,
        parameter: &Value,
        work: &mut Work,
    ) -> Result<Value, Kind> {
        (self.apply)(input, parameter, work)
    }
}

pub(super) const FILTERS: [(&str, Apply); 45] = [
    ("add", add),
    ("addslashes", |value, _, _| text(value, text::addslashes)),
    ("capfirst", |value, _, _| match value.length() {
        0 => Ok(Value::from("")),
        _ => text(value, text::capfirst),
    }),
    ("center", center),
    ("cut", |value, cut, _| match &*cut.text() {
        "" => Ok(value.text().as_ref().into()),
        cut => text(value, |text| text.replace(cut, "")),
    }),
    ("default", |value, other, _| Ok(if value.is_true() { value } else { other }.clone())),
    ("default_if_none", |value, other, _| {
        Ok(if matches!(value, Value::Nil) { other } else { value }.clone())
    }),
    ("divisibleby", |value, by, _| {
        let (value, by) = (value.integer(), by.integer());
        Ok(Value::Bool(by != 0 && value.wrapping_rem(by) == 0))
    }),
    ("e", |value, _, _| text(value, text::escaped)),
    ("escape", |value, _, _| text(value, text::escaped)),
    ("escapejs", |value, _, _| text(value, text::escapejs)),
    ("first", |value, _, _| Ok(end_of(value, 0))),
    ("float", |value, _, _| Ok(Value::Float(value.float()))),
    ("floatformat", floatformat),
    ("get_digit", |value, index, _| Ok(get_digit(value, index))),
    ("integer", |value, _, _| Ok(Value::Int(value.integer()))),
    ("iriencode", |value, _, _| text(value, |text| text::encoded(text, "/#%[]=:;$&()+,!?*@'~"))),
    ("join", join),
    ("last", |value, _, _| Ok(end_of(value, value.length().saturating_sub(1)))),
    ("length", |value, _, _| Ok(Value::from(value.length()))),
    ("length_is", |value, length, _| {
        Ok(Value::Bool(usize::try_from(length.integer()) == Ok(value.length())))
    }),
    ("linebreaks", |value, _, _| match value.length() {
        0 => Ok(value.clone()),
        _ => text(value, text::linebreaks),
    }),
    ("linebreaksbr", |value, _, _| text(value, |text| text.replace('\n', "<br />"))),
    ("linenumbers", |value, _, _| text(value, text::linenumbers)),
    ("ljust", |value, width, work| {
        padded(value, width, value.length(), work, |spaces| (0, spaces))
    }),
    ("lower", |value, _, _| text(value, |text| text.chars().map(text::lower).collect())),
    ("make_list", |value, _, work| {
        let text = value.text();
        work.list(text.len())?;
        Ok(Value::List(Rc::new(text.chars().map(Value::character).collect())))
    }),
    ("phone2numeric", |value, _, _| {
        text(value, |text| text.chars().map(text::phone_digit).collect())
    }),
    ("pluralize", pluralize),
    ("removetags", removetags),
    ("rjust", |value, width, work| {
        let length = value.text().chars().count();
        padded(value, width, length, work, |spaces| (spaces, 0))
    }),
    ("safe", |value, _, _| Ok(value.clone())),
    ("slice", slice),
    ("split", split),
    ("stringformat", |value, format, work| format::sprintf(&format.text(), value, work)),
    ("striptags", |value, _, _| text(value, |text| text::striptags(text).trim().to_owned())),
    ("title", |value, _, _| match value {
        Value::Text(_) => text(value, text::title),
        _ => Ok(Value::from("")),
    }),
    ("truncatechars", |value, length, _| Ok(truncatechars(value, length))),
    ("truncatewords", |value, count, _| Ok(truncatewords(value, count))),
    ("upper", |value, _, _| text(value, |text| text.chars().map(text::upper).collect())),
    ("urlencode", |value, _, _| text(value, |text| text::encoded(text, ""))),
    ("wordcount", |value, _, _| Ok(Value::from(value.text().split_whitespace().count()))),
    ("wordwrap", |value, count, _| Ok(wordwrap(value, count))),
    ("yesno", yesno),
    ("unsafe", |value, _, _| Ok(value.clone())),
];

/// Applies a function on texts to what is written for a value.
#[expect(clippy::unnecessary_wraps, reason = "every filter can fail as far as the table knows")]
fn text(value: &Value, change: impl Fn(&str) -> String) -> Result<Value, Kind> {
    Ok(Value::from(change(&value.text())))
}

fn add(value: &Value, other: &Value, work: &mut Work) -> Result<Value, Kind> {
    if value.is_number() && other.is_number() {
        return Ok(if value.is_float() || other.is_float() {
            Value::Float(value.float() + other.float())
        } else {
            Value::Int(value.integer().wrapping_add(other.integer()))
        });
    }
    let (value, other) = (value.text(), other.text());
    work.text(value.len() + other.len())?;
    Ok(Value::from([&*value, &*other].concat()))
}

/// Text, which counts as `length` characters, with spaces around it; `share` says how many go
/// before and after it.
fn padded(
    value: &Value,
    width: &Value,
    length: usize,
    work: &mut Work,
    share: impl Fn(usize) -> (usize, usize),
) -> Result<Value, Kind> {
    let text = value.text();
    let width = usize::try_from(width.integer()).unwrap_or(0);
    let spaces = width.saturating_sub(length);
    work.text(spaces.saturating_add(text.len()))?;
    let (before, after) = share(spaces);
    Ok(Value::from([&" ".repeat(before), &*text, &" ".repeat(after)].concat()))
}

fn center(value: &Value, width: &Value, work: &mut Work) -> Result<Value, Kind> {
    padded(value, width, value.length(), work, |spaces| (spaces.div_ceil(2), spaces / 2))
}

/// The first or last of what has an order, else an empty text.
fn end_of(value: &Value, index: usize) -> Value {
    match value {
        Value::List(list) if list.is_empty() => Value::from(""),
        Value::List(_) | Value::Text(_) => value.nth(index),
        _ => Value::from(""),
    }
}

fn floatformat(value: &Value, decimals: &Value, _: &mut Work) -> Result<Value, Kind> {
    let number = value.float();
    let places = if matches!(decimals, Value::Nil) { -1 } else { decimals.integer() };
    let trim = !decimals.is_number() || places <= 0;
    if trim && number.is_finite() && number.fract() == 0.0 {
        return Ok(Value::Int(value.integer()));
    }
    match usize::try_from(places.unsigned_abs()) {
        Ok(places @ 0..=100) => Ok(Value::from(fixed(number, places))),
        _ => Err(Kind::Value("floatformat expects up to 100 decimals".to_owned())),
    }
}

fn get_digit(value: &Value, index: &Value) -> Value {
    let text = value.text();
    let byte = usize::try_from(index.integer())
        .ok()
        .filter(|index| *index > 0)
        .and_then(|index| text.len().checked_sub(index))
        .and_then(|index| text.as_bytes().get(index));
    match byte {
        Some(byte) => Value::Int(byte.wrapping_sub(b'0').into()),
        None => value.clone(),
    }
}

fn join(value: &Value, separator: &Value, work: &mut Work) -> Result<Value, Kind> {
    let separator = separator.text();
    let items: Vec<Rc<str>> = match value {
        Value::List(list) => list.iter().map(Value::text).collect(),
        Value::Text(text) => {
            work.list(text.len())?;
            text.chars().map(|character| Value::character(character).text()).collect()
        }
        other => return Ok(other.clone()),
    };
    let separators = separator.len().saturating_mul(items.len().saturating_sub(1));
    let texts: usize = items.iter().map(|item| item.len()).sum();
    work.text(texts.saturating_add(separators))?;
    Ok(Value::from(items.join(&*separator)))
}

fn pluralize(value: &Value, endings: &Value, _: &mut Work) -> Result<Value, Kind> {
    if !value.is_number() {
        return Err(Kind::Value(format!("pluralize expects a number, this is {}", value.kind())));
    }
    let one = value.integer() == 1;
    let endings = if endings.length() > 0 { endings.text() } else { "s".into() };
    match endings.split(',').take(3).collect::<Vec<_>>().as_slice() {
        [many] => Ok(Value::from(if one { "" } else { many })),
        [single, many] => Ok(Value::from(if one { *single } else { *many })),
        _ => Err(Kind::Value("pluralize expects one or two endings".to_owned())),
    }
}

fn removetags(value: &Value, tags: &Value, work: &mut Work) -> Result<Value, Kind> {
    let tags = tags.text();
    let mut text = value.text().to_string();
    for tag in tags.split(',').filter(|tag| !tag.is_empty()) {
        for form in [format!("<{tag}>"), format!("</{tag}>"), format!("<{tag}/>")] {
            work.text(text.len())?;
            text = text.replace(&form, "");
        }
    }
    Ok(Value::from(text.trim()))
}

/// `from:to`; either may be missing, and both may count from the end.
fn slice(value: &Value, range: &Value, work: &mut Work) -> Result<Value, Kind> {
    let range = range.text();
    let Some((from, to)) = range.split_once(':').filter(|(_, to)| !to.contains(':')) else {
        return Err(Kind::Value("slice expects \"FROM:TO\"; either may be left out".to_owned()));
    };
    let length = value.length();
    let bound = |text: &str, missing: usize| {
        if text.trim().is_empty() {
            return missing;
        }
        let number = Value::from(text).integer();
        let size = usize::try_from(number.unsigned_abs()).unwrap_or(usize::MAX);
        if number < 0 { length.saturating_sub(size) } else { size.min(length) }
    };
    let from = bound(from, 0);
    let to = bound(to, length).max(from);
    match value {
        Value::List(list) => {
            work.list(to - from)?;
            Ok(Value::List(Rc::new(list[from..to].to_vec())))
        }
        Value::Text(text) => {
            let part: String = text.chars().skip(from).take(to - from).collect();
            Ok(Value::from(part))
        }
        other => Ok(other.clone()),
    }
}

fn split(value: &Value, separator: &Value, work: &mut Work) -> Result<Value, Kind> {
    let (text, separator) = (value.text(), separator.text());
    let parts: Vec<Value> = if separator.is_empty() {
        work.list(text.len())?;
        text.chars().map(Value::character).collect()
    } else {
        work.list(text.matches(&*separator).count())?;
        text.split(&*separator).map(Value::from).collect()
    };
    Ok(Value::List(Rc::new(parts)))
}

fn truncatechars(value: &Value, length: &Value) -> Value {
    let text = value.text();
    let length = usize::try_from(length.integer()).unwrap_or(0);
    if text.chars().nth(length).is_none() {
        return Value::Text(text);
    }
    let (kept, dots) = if length >= 3 { (length - 3, "...") } else { (length, "") };
    Value::from(text.chars().take(kept).chain(dots.chars()).collect::<String>())
}

fn truncatewords(value: &Value, count: &Value) -> Value {
    let text = value.text();
    let count = usize::try_from(count.integer()).unwrap_or(0);
    if count == 0 {
        return Value::from("");
    }
    let mut words = text.split_whitespace();
    let mut kept: Vec<&str> = words.by_ref().take(count).collect();
    if words.next().is_some() {
        kept.push("...");
    }
    Value::from(kept.join(" "))
}

/// So many words a line.
fn wordwrap(value: &Value, count: &Value) -> Value {
    let text = value.text();
    match usize::try_from(count.integer()) {
        Ok(count @ 1..) => {
            let words: Vec<&str> = text.split_whitespace().collect();
            let lines: Vec<String> = words.chunks(count).map(|line| line.join(" ")).collect();
            Value::from(lines.join("\n"))
        }
        _ => value.clone(),
    }
}

fn yesno(value: &Value, choices: &Value, _: &mut Work) -> Result<Value, Kind> {
    let choices = choices.text();
    let choices = if choices.is_empty() { "yes,no,maybe" } else { &*choices };
    let (yes, no, maybe) = match choices.split(',').take(4).collect::<Vec<_>>().as_slice() {
        [yes, no] => (*yes, *no, "maybe"),
        [yes, no, maybe] => (*yes, *no, *maybe),
        _ => return Err(Kind::Value("yesno expects two or three words".to_owned())),
    };
    let word = match value {
        Value::Nil => maybe,
        other if other.is_true() => yes,
        _ => no,
    };
    Ok(Value::from(word))
}
