//! What a template computes with: the values, and what the language asks of them.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A value. Cloning one is cheap; nothing changes a value after it was made.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// What an unknown name is.
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Rc<str>),
    List(Rc<Vec<Value>>),
    Map(Rc<BTreeMap<String, Value>>),
    /// `forloop`
    Loop(Rc<Loop>),
    /// `config_get`, the only function there is.
    ConfigGet,
}

/// Where a `for` is; the names are those of the language.
#[derive(Debug)]
pub(super) struct Loop {
    pub(super) index: usize,
    pub(super) count: usize,
    pub(super) parent: Value,
}

impl Loop {
    pub(super) fn field(&self, name: &str) -> Value {
        match name {
            "Counter" => Value::from(self.index + 1),
            "Counter0" => Value::from(self.index),
            "Revcounter" => Value::from(self.count - self.index),
            "Revcounter0" => Value::from(self.count - self.index - 1),
            "First" => Value::Bool(self.index == 0),
            "Last" => Value::Bool(self.index + 1 == self.count),
            "Parentloop" => self.parent.clone(),
            _ => Value::Nil,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<&BTreeMap<String, String>> for Value {
    fn from(map: &BTreeMap<String, String>) -> Self {
        let texts = map.iter().map(|(key, value)| (key.clone(), value.as_str().into()));
        Self::Map(Rc::new(texts.collect()))
    }
}

impl Value {
    /// How an error calls a value of this kind.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nothing",
            Self::Bool(_) => "true or false",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Loop(_) => "the state of a loop",
            Self::ConfigGet => "a function",
        }
    }

    /// What is written for it.
    pub(super) fn text(&self) -> Rc<str> {
        match self {
            Self::Text(text) => Rc::clone(text),
            Self::Nil | Self::ConfigGet => "".into(),
            Self::Bool(true) => "True".into(),
            Self::Bool(false) => "False".into(),
            Self::Int(number) => number.to_string().into(),
            Self::Float(number) => fixed(*number, 6).into(),
            // Nobody wants these, but an image whose template writes one still starts, as in LXD.
            Self::List(_) => "<[]string Value>".into(),
            Self::Map(map) if map.values().any(|value| matches!(value, Self::Map(_))) => {
                "<map[string]map[string]string Value>".into()
            }
            Self::Map(_) => "<map[string]string Value>".into(),
            Self::Loop(_) => "<forloop Value>".into(),
        }
    }

    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Nil | Self::ConfigGet => false,
            Self::Bool(value) => *value,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(list) => !list.is_empty(),
            Self::Map(map) => !map.is_empty(),
            Self::Loop(_) => true,
        }
    }

    /// `not`: of a number it is a number.
    pub(super) fn negated(&self) -> Self {
        match self {
            Self::Int(number) => Self::Int(i64::from(*number == 0)),
            Self::Float(number) => Self::Float(if *number == 0.0 { 1.1 } else { 0.0 }),
            other => Self::Bool(!other.is_true()),
        }
    }

    pub(super) fn is_float(&self) -> bool {
        matches!(self, Self::Float(_))
    }

    /// Text that is not the text of a number: `+` puts it together instead of adding.
    pub(super) fn is_plain_text(&self) -> bool {
        matches!(self, Self::Text(text) if text.parse::<f64>().is_err())
    }

    /// Bytes of text; all else counts as none.
    pub(super) fn size(&self) -> usize {
        if let Self::Text(text) = self { text.len() } else { 0 }
    }

    /// Elements of a list; all else has none.
    pub(super) fn elements(&self) -> usize {
        if let Self::List(list) = self { list.len() } else { 0 }
    }

    pub(super) fn is_number(&self) -> bool {
        matches!(self, Self::Int(_) | Self::Float(_))
    }

    /// As a whole number; what is none is 0.
    pub(super) fn integer(&self) -> i64 {
        match self {
            Self::Int(number) => *number,
            // Cuts off the fraction; too large ones become the largest.
            #[expect(clippy::cast_possible_truncation)]
            other => other.float() as i64,
        }
    }

    /// As a number; what is none is 0.
    pub(super) fn float(&self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss)]
            Self::Int(number) => *number as f64,
            Self::Float(number) => *number,
            Self::Text(text) => text.parse().unwrap_or(0.0),
            _ => 0.0,
        }
    }

    /// The number of characters, elements or keys; else 0.
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Text(text) => text.chars().count(),
            Self::List(list) => list.len(),
            Self::Map(map) => map.len(),
            _ => 0,
        }
    }

    /// The element or character at `index`; nothing beyond the end.
    pub(super) fn nth(&self, index: usize) -> Self {
        match self {
            Self::List(list) => list.get(index).cloned().unwrap_or(Self::Nil),
            Self::Text(text) => text.chars().nth(index).map_or(Self::from(""), Self::character),
            _ => Self::Nil,
        }
    }

    /// A text of one character.
    pub(super) fn character(character: char) -> Self {
        Self::from(&*character.encode_utf8(&mut [0; 4]))
    }

    /// `==`: values of different kinds differ, so `"1" == 1` is false.
    pub(super) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nil, Self::Nil) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            // Bit for bit would make 0.0 and -0.0 differ.
            #[expect(clippy::float_cmp)]
            (Self::Float(a), Self::Float(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::List(a), Self::List(b)) => Rc::ptr_eq(a, b),
            (Self::Map(a), Self::Map(b)) => Rc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// `<` and its like: by number, whatever the values are.
    pub(super) fn compare(&self, other: &Self) -> Option<Ordering> {
        if self.is_float() || other.is_float() {
            self.float().partial_cmp(&other.float())
        } else {
            Some(self.integer().cmp(&other.integer()))
        }
    }

    /// The order of `sorted`: numbers by size, all else by what is written for it.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            _ => self.text().cmp(&other.text()),
        }
    }

    /// `other in self`
    pub(super) fn contains(&self, other: &Self) -> bool {
        match self {
            Self::Text(text) => text.contains(&*other.text()),
            Self::List(list) => list.iter().any(|item| item.equals(other)),
            Self::Map(map) => matches!(other, Self::Text(key) if map.contains_key(&**key)),
            Self::Loop(state) => !matches!(state.field(&other.text()), Self::Nil),
            _ => false,
        }
    }
}

/// A number with `decimals` digits after the point, as Go writes it.
pub(super) fn fixed(number: f64, decimals: usize) -> String {
    if number.is_nan() {
        "NaN".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        format!("{number:.decimals$}")
    }
}
