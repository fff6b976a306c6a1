//! `stringformat`: one value by a format of Go's `fmt`, as far as files need it.

use super::error::Kind;
use super::evaluate::Work;
use super::value::Value;

/// The largest width and precision.
const MAX_WIDTH: usize = 1000;

/// What stands between `%` and the letter.
#[derive(Default)]
struct Spec {
    left: bool,
    plus: bool,
    sharp: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
}

/// `format` with the value put in where it has a `%`.
pub(super) fn sprintf(format: &str, value: &Value, work: &mut Work) -> Result<Value, Kind> {
    let mut result = String::new();
    let mut rest = format;
    let mut used = false;
    while let Some((before, after)) = rest.split_once('%') {
        result.push_str(before);
        let (spec, verb, after) = read(after)?;
        rest = after;
        if verb == '%' {
            result.push('%');
        } else if std::mem::replace(&mut used, true) {
            return Err(Kind::Value("stringformat has one value, its format asks for more".into()));
        } else {
            work.text(value.size() * 3 + spec.width)?;
            let text = convert(&spec, verb, value)?;
            result.push_str(&pad(&spec, &text, value.is_number()));
        }
    }
    result.push_str(rest);
    Ok(Value::from(result))
}

fn read(text: &str) -> Result<(Spec, char, &str), Kind> {
    let mut spec = Spec::default();
    let mut rest = text;
    loop {
        match rest.as_bytes().first() {
            Some(b'-') => spec.left = true,
            Some(b'+') => spec.plus = true,
            Some(b'#') => spec.sharp = true,
            Some(b'0') => spec.zero = true,
            Some(b' ') => {}
            _ => break,
        }
        rest = &rest[1..];
    }
    (spec.width, rest) = number(rest)?;
    if let Some(after) = rest.strip_prefix('.') {
        let (precision, after) = number(after)?;
        spec.precision = Some(precision);
        rest = after;
    }
    let verb = rest
        .chars()
        .next()
        .ok_or_else(|| Kind::Value("stringformat expects a letter after `%`".to_owned()))?;
    Ok((spec, verb, &rest[verb.len_utf8()..]))
}

fn number(text: &str) -> Result<(usize, &str), Kind> {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    match if digits.is_empty() { Ok(0) } else { digits.parse() } {
        Ok(number @ 0..=MAX_WIDTH) => Ok((number, rest)),
        _ => Err(Kind::Value(format!("stringformat expects widths up to {MAX_WIDTH}"))),
    }
}

fn convert(spec: &Spec, verb: char, value: &Value) -> Result<String, Kind> {
    let signed = |text: String, negative: bool| {
        if spec.plus && !negative { format!("+{text}") } else { text }
    };
    let prefix = |prefix: &str| if spec.sharp { prefix.to_owned() } else { String::new() };
    Ok(match (verb, value) {
        ('v' | 'd', Value::Int(number)) => signed(number.to_string(), *number < 0),
        ('x', Value::Int(number)) => prefix("0x") + &radix(*number, 16),
        ('X', Value::Int(number)) => prefix("0X") + &radix(*number, 16).to_uppercase(),
        ('o', Value::Int(number)) => prefix("0") + &radix(*number, 8),
        ('b', Value::Int(number)) => prefix("0b") + &radix(*number, 2),
        ('f' | 'F', Value::Float(number)) => {
            signed(super::value::fixed(*number, spec.precision.unwrap_or(6)), *number < 0.0)
        }
        ('v' | 'g', Value::Float(number)) => signed(number.to_string(), *number < 0.0),
        ('v' | 't', Value::Bool(value)) => value.to_string(),
        ('v' | 's', Value::Text(text)) => match spec.precision {
            Some(length) => text.chars().take(length).collect(),
            None => text.to_string(),
        },
        ('q', Value::Text(text)) => format!("{text:?}"),
        ('x', Value::Text(text)) => hex::encode(&**text),
        ('X', Value::Text(text)) => hex::encode_upper(&**text),
        ('v', Value::Nil) => "<nil>".to_owned(),
        _ => {
            let kind = value.kind();
            return Err(Kind::Value(format!("stringformat has no `%{verb}` for {kind}")));
        }
    })
}

/// A number with its sign in front of the digits of its size.
fn radix(number: i64, radix: u64) -> String {
    let mut digits = Vec::new();
    let mut rest = number.unsigned_abs();
    loop {
        let digit = u32::try_from(rest % radix).unwrap_or(0);
        digits.extend(char::from_digit(digit, 16));
        rest /= radix;
        if rest == 0 {
            break;
        }
    }
    let sign = if number < 0 { "-" } else { "" };
    sign.chars().chain(digits.into_iter().rev()).collect()
}

fn pad(spec: &Spec, text: &str, number: bool) -> String {
    let missing = spec.width.saturating_sub(text.chars().count());
    if spec.left {
        format!("{text}{}", " ".repeat(missing))
    } else if spec.zero && number {
        let sign = text.len() - text.trim_start_matches(['-', '+']).len();
        let (sign, digits) = text.split_at(sign);
        format!("{sign}{}{digits}", "0".repeat(missing))
    } else {
        format!("{}{text}", " ".repeat(missing))
    }
}
